"""``imgcls export``: a classifier's checkpoint as a file for another runtime."""

import argparse
import logging
from collections.abc import Sequence

from imgcls.cli import command
from imgcls.errors import UserError


@command(
    "Writes a classifier's checkpoint as ONNX (.onnx), torch.export (.pt2), OpenVINO IR (.xml) or TorchScript (.ts).\n"
    "The file takes raw uint8 images and gives probabilities. It is written only after it gave the results of the\n"
    "checkpoint on real images, or an int8 file only if it keeps its metric.",
    "imgcls export output/model_final.pth model.onnx --verify folder:images/val",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Writes the file and prints the result of the comparison."""
    parser.add_argument("source", metavar="CHECKPOINT", help="of a classifier")
    parser.add_argument("target", metavar="OUT", help="file to write: .onnx, .pt2, .xml or .ts")
    parser.add_argument(
        "--verify", metavar="DATASET",
        help="at least 64 images with the classes of the checkpoint, such as folder:PATH, to compare on (default: the "
        "test set in the checkpoint's config)",
    )  # fmt: skip
    parser.add_argument("--nhwc", action="store_true", help="take images (N, H, W, 3) instead of (N, 3, H, W)")
    parser.add_argument(
        "--resize-inside",
        action="store_true",
        help="take images of any size, and resize and crop them in the graph (.onnx and .pt2)",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (default: that of torch's exporter)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--quantize", choices=["int8"], help="write an int8 file (.onnx): a quarter of the size, faster on most CPUs"
    )
    parser.add_argument(
        "--calibrate", metavar="DATASET",
        help="with --quantize: 32 or more images, better 128 of all classes; training images will do",
    )  # fmt: skip
    parser.add_argument(
        "--max-drop", metavar="POINTS", type=float,
        help="with --quantize: write no file that loses more of its metric on the --verify set (default: 1.0)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    _check_int8(args)

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from imgcls.inference.export import QuantizationOptions, export_classifier

    limit = {} if args.max_drop is None else {"max_drop": args.max_drop}
    options = QuantizationOptions(args.calibrate, **limit) if args.quantize else None
    proof = export_classifier(
        args.source, args.target, args.verify, args.nhwc, args.opset, args.force, args.resize_inside, options
    )
    print(f"{args.target}: verified on {proof}")


def _check_int8(args: argparse.Namespace) -> None:
    if args.quantize and not args.calibrate:
        raise UserError("--quantize int8 needs images to quantise with: add --calibrate DATASET")
    for name, value in (("--calibrate", args.calibrate), ("--max-drop", args.max_drop)):
        if not args.quantize and value is not None:
            raise UserError(f"{name} is for int8 files: add --quantize int8, or leave it out")
    if args.max_drop is not None and not 0 <= args.max_drop <= 100:
        raise UserError(f"--max-drop is {args.max_drop:g}; allowed: points, from 0 to 100")
