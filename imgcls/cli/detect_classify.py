"""``imgcls detect-classify``: the boxes of a detector, and the classes of a classifier for each."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgcls.cli import command
from imgcls.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgcls.inference.detect import ClassifiedBox

_JSON = "detections.json"


@command(
    "Finds boxes with a detectron2 detector, and predicts the class of each with a classifier.",
    "imgcls detect-classify output/detector/config.yaml output/model_final.pth photos/ \\\n"
    "      --weights output/detector/model_final.pth --output found",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Writes a drawing of each image and one JSON of all boxes; returns 1 if some image could not be read."""
    parser.add_argument(
        "detector", metavar="DETECTOR",
        help="a detector's config file (or a name of the model zoo), or the checkpoint of one that imgcls trained",
    )  # fmt: skip
    parser.add_argument("classifier", metavar="CLASSIFIER", help="a classifier's checkpoint")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, folders, globs in quotes, ...")
    parser.add_argument("--weights", metavar="FILE", default="", help="of the detector (default: MODEL.WEIGHTS)")
    parser.add_argument("-o", "--output", metavar="DIR", default="detections", help="folder (default: detections)")
    parser.add_argument("--min-score", type=float, default=0.5, help="leave out boxes below it (default: 0.5)")
    parser.add_argument(
        "--margin", type=float, default=0.1,
        help="widen boxes on each side by this share of their longer side (default: 0.1)",
    )  # fmt: skip
    parser.add_argument("--topk", type=int, default=5, help="classes of each box, best first (default: 5)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first GPU, or the CPU)")
    parser.add_argument("--force", action="store_true", help=f"replace an existing {_JSON}")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read the detector's weights even if they hold Python objects; reading them can run code in the file",
    )
    args = parser.parse_args(argv)
    if args.margin < 0:
        parser.error(f"--margin is {args.margin}; allowed: from 0")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    target = os.path.join(args.output, _JSON)
    if os.path.exists(target) and not args.force:
        raise UserError(f"{target}: exists; add --force to replace it, or name another folder with --output")

    from tqdm import tqdm

    from imgcls.data.image import BadImageError, EncodedImage, read_bytes
    from imgcls.disk import write_text
    from imgcls.inference.detect import classify_boxes, load_detector
    from imgcls.inference.image_sources import list_images
    from imgcls.inference.prediction import Ranking
    from imgcls.inference.predictor import Predictor, reason
    from imgcls.model_zoo import find_config_file

    source = args.detector
    if source.endswith((".yaml", ".yml")):
        source = find_config_file(source, "DETECTOR")
    detector = load_detector(source, args.weights, args.device, args.allow_pickle)
    predictor = Predictor.from_checkpoint(args.classifier, args.device)
    ranking = Ranking(predictor.info, args.topk)
    records = list_images(args.images, sys.stdin)
    write_text(target, "[]\n", "name another folder with --output")  # before the work, not after it
    boxes, unreadable = [], []
    for number, record in enumerate(tqdm(records, unit=" images", disable=None)):
        name = record["file_name"]
        try:
            pixels = EncodedImage(read_bytes(record), name, "RGB").pixels()
        except BadImageError as error:
            unreadable.append(reason(error))
            continue
        found = classify_boxes(detector, predictor, pixels, ranking, args.min_score, args.margin)
        boxes += [box.as_dict(name) for box in found]
        stem = os.path.splitext(os.path.basename(name))[0]
        _draw(os.path.join(args.output, f"{number:06d}_{stem}.jpg"), pixels, found)
    write_text(target, json.dumps(boxes, indent=1, ensure_ascii=False) + "\n", "free some space")
    print(f"{len(boxes)} boxes in {len(records) - len(unreadable)} images: {target}")
    for message in unreadable:
        print(f"unreadable: {message}", file=sys.stderr)
    return 1 if unreadable else 0


def _draw(path: str, pixels: "NDArray[np.uint8]", found: "list[ClassifiedBox]") -> None:
    from imgcls.inference.draw import draw_boxes

    labels = [f"{box.prediction.classes[0]} {box.prediction.probabilities[0]:.2f}" for box in found]
    kinds = [box.detection["category_id"] for box in found]
    try:
        draw_boxes(pixels, [box.detection["bbox"] for box in found], labels, kinds).save(path, quality=92)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free some space") from error
