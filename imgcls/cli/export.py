"""``imgcls export``: a classifier's checkpoint as a file for another runtime."""

import argparse
import logging
from collections.abc import Sequence

from imgcls.cli import command


@command(
    "Writes a classifier's checkpoint as ONNX (.onnx), torch.export (.pt2), OpenVINO IR (.xml) or TorchScript (.ts).\n"
    "The file takes raw uint8 images and gives probabilities. It is written only after it gave the results of the\n"
    "checkpoint on real images.",
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
    args = parser.parse_args(argv)

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from imgcls.inference.export import export_classifier

    proof = export_classifier(
        args.source, args.target, args.verify, args.nhwc, args.opset, args.force, args.resize_inside
    )
    print(f"{args.target}: verified on {proof}")
