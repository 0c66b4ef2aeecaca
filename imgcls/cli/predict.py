"""``imgcls predict``: the classes of images, from a classifier's checkpoint or an exported file."""

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imgcls.cli import add_inference_arguments, check_minimum, command, read_class_names
from imgcls.errors import UserError

if TYPE_CHECKING:
    from imgcls.inference.batches import PredictedBatch


@command(
    "Predicts the classes of images.",
    "imgcls predict output/model_final.pth photos/ --output photos.csv\n"
    "  find photos -name '*.jpg' | imgcls predict output/model_final.pth - --topk 1",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Writes or prints predictions; returns 1 if some image could not be read, and exits with 130 on Ctrl-C."""
    args = _parse(parser, argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return _write(args) if args.output else _print(args)


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    add_inference_arguments(parser)
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+",
        help="image files, folders, globs in quotes, - for names on standard input, dataset names (folder:PATH, "
        "shards:PATH, ...), or a .json of detections, whose boxes are cropped",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help=".csv, .jsonl or .parquet (default: print lines)")
    parser.add_argument("--topk", type=int, default=5, help="classes of each image, best first (default: 5)")
    parser.add_argument(
        "--threshold", type=float, help="list the classes above it (default: the thresholds of a multi-label model)"
    )
    parser.add_argument("--save-images", metavar="DIR", help="draw the classes below each image, into this folder")
    parser.add_argument(
        "--cam", action="store_true",
        help="in the images of --save-images, show what the network saw and which parts speak for the best class "
        "(Grad-CAM)",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=0.1,
        help="widen boxes of detections on each side by this share of their longer side (default: 0.1)",
    )  # fmt: skip
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out detections below it (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted call with the same --output")
    parser.add_argument("--force", action="store_true", help="replace an existing --output")
    args = parser.parse_args(argv)
    check_minimum(parser, args, batch_size=1, workers=0, margin=0)
    if args.cam and not args.save_images:
        parser.error("--cam needs --save-images, the folder to write into")
    if args.resume and not args.output:
        parser.error("--resume needs --output, the file of the interrupted call")
    return args


class _PredictCall:
    """The loaded model, the images and the settings of a call."""

    def __init__(self, args: argparse.Namespace):
        from imgcls.inference.image_sources import list_images
        from imgcls.inference.prediction import Ranking
        from imgcls.inference.predictor import Predictor

        self.args = args
        names = read_class_names(args.classes) if args.classes else None
        self.predictor = Predictor.from_file(args.model, args.device, names)
        self.ranking = Ranking(self.predictor.info, args.topk, args.threshold)
        self.records = list_images(args.sources, sys.stdin, args.min_score)
        self.unreadable: list[str] = []
        self.drawings = None
        if args.save_images:
            from imgcls.inference.prediction_images import PredictionImages

            self.drawings = PredictionImages(args.save_images, self.predictor, self.records, args.margin, args.cam)

    def batches(self, first: int = 0) -> Iterable["PredictedBatch"]:
        """Batches from a record on, with a progress bar on a terminal."""
        from tqdm import tqdm

        from imgcls.inference.batches import predict_records

        args = self.args
        done = first
        with tqdm(total=len(self.records), initial=first, unit=" images", disable=None) as bar:
            for batch in predict_records(
                self.predictor, self.records, self.ranking, args.batch_size, args.workers, first, args.margin
            ):
                if self.drawings is not None:
                    self.drawings.add(done, batch)
                self.note(prediction.error for prediction in batch.predictions)
                yield batch
                done += len(batch.predictions)
                bar.update(len(batch.predictions))

    def note(self, errors: Iterable[str]) -> None:
        """Collects the messages of unreadable images."""
        self.unreadable += filter(None, errors)

    def finish(self) -> int:
        """Names the unreadable images; returns the exit code."""
        for message in self.unreadable:
            print(f"unreadable: {message}", file=sys.stderr)
        if self.unreadable:
            print(f"{len(self.unreadable)} of {len(self.records)} images could not be read", file=sys.stderr)
        return 1 if self.unreadable else 0


def _print(args: argparse.Namespace) -> int:
    from imgcls.inference.draw import describe

    work = _PredictCall(args)
    for batch in work.batches():
        for prediction, box in zip(batch.predictions, batch.boxes, strict=True):
            where = "" if box is None else f" [{' '.join(f'{side:g}' for side in box)}]"
            if not prediction.error:
                print(f"{prediction.source}{where}: {', '.join(describe(prediction))}", flush=True)
    return work.finish()


def _write(args: argparse.Namespace) -> int:
    from imgcls.disk import file_digest
    from imgcls.inference.journal import SUFFIX, PredictionJournal
    from imgcls.inference.prediction_table import as_row, check_format, write_rows

    check_format(args.output)
    unfinished = os.path.exists(args.output + SUFFIX)
    if args.resume and not unfinished:
        raise UserError(f"--resume: there is no {args.output}{SUFFIX} of an interrupted call; leave --resume out")
    if unfinished and not (args.resume or args.force):
        raise UserError(f"{args.output}{SUFFIX} is of an interrupted call; add --resume, or --force to start again")
    if os.path.exists(args.output) and not (args.resume or args.force):
        raise UserError(f"--output {args.output}: exists; add --force to replace it, or name another file")
    work = _PredictCall(args)
    settings = {
        "model": file_digest(args.model), "topk": args.topk, "threshold": args.threshold, "margin": args.margin,
    }  # fmt: skip
    if args.classes:
        settings["classes"] = work.predictor.info.classes
    journal = PredictionJournal(args.output, settings)
    first = 0
    if args.resume:
        first = journal.resume(work.records, args.batch_size)
        work.note(row.get("error", "") for row in journal.rows())
    else:
        journal.start()
    try:
        for batch in work.batches(first):
            journal.append([as_row(p, box) for p, box in zip(batch.predictions, batch.boxes, strict=True)])
    except KeyboardInterrupt:
        journal.close()
        print(f"interrupted; the same command with --resume continues from {journal.path}", file=sys.stderr)
        raise SystemExit(130) from None
    boxes = any(row.get("box") for row in journal.rows())
    write_rows(args.output, journal.rows(), work.ranking.topk, boxes, work.ranking.thresholds is not None)
    journal.close(remove=True)
    print(f"{len(work.records) - len(work.unreadable)} images predicted: {args.output}")
    return work.finish()
