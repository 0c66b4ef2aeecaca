"""``imgcls eval``: the metrics of a checkpoint or an exported file on a dataset."""

import argparse
import logging
from collections.abc import Sequence

from imgcls.cli import add_inference_arguments, check_minimum, command, read_class_names


@command(
    "Evaluates a classifier's checkpoint or an exported file on a dataset, with the metrics of --eval-only.",
    "imgcls eval model.onnx folder:images/val",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Prints the metrics, and writes the result files with ``--output``."""
    add_inference_arguments(parser)
    parser.add_argument("dataset", metavar="DATASET", help="folder:PATH, csv:PATH, shards:PATH, ... or a name")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for accuracy.json, per_class.csv, ...")
    args = parser.parse_args(argv)
    check_minimum(parser, args, batch_size=1, workers=0)

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
