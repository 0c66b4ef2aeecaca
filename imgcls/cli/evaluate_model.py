"""``imgcls eval``: the metrics of a checkpoint or an exported file on a dataset."""

import argparse
import logging
import os
from collections.abc import Sequence

from imgcls.cli import command, read_class_names


@command(
    "Evaluates a classifier's checkpoint or an exported file on a dataset, with the metrics of --eval-only.",
    "imgcls eval model.onnx folder:images/val",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Prints the metrics, and writes the result files with ``--output``."""
    parser.add_argument("model", metavar="MODEL", help="a classifier's checkpoint, or a file of imgcls export")
    parser.add_argument("dataset", metavar="DATASET", help="folder:PATH, csv:PATH, shards:PATH, ... or a name")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for accuracy.json, per_class.csv, ...")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch (default: 32)")
    parser.add_argument(
        "-j", "--workers", type=int, default=len(os.sched_getaffinity(0)),
        help="processes that decode images (default: one for each core)",
    )  # fmt: skip
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first GPU, or the CPU)")
    parser.add_argument("--classes", metavar="FILE", help="class names to use instead of the model's, one a line")
    args = parser.parse_args(argv)
    for flag, value, lowest in (("--batch-size", args.batch_size, 1), ("--workers", args.workers, 0)):
        if value < lowest:
            parser.error(f"{flag} is {value}; allowed: from {lowest}")

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from imgcls.inference.predictor import Predictor
    from imgcls.inference.score import read_labelled, score

    names = read_class_names(args.classes) if args.classes else None
    predictor = Predictor.from_file(args.model, args.device, names)
    dataset = read_labelled(args.dataset, predictor.info)
    results = score(predictor, dataset, args.batch_size, args.workers, args.output)
    print(f"{len(dataset.records)} images of {args.dataset}")
    for metrics in results.values():
        for name, value in metrics.items():
            print(f"{name}: {value:.4f}")
