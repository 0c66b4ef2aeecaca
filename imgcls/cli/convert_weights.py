"""``imgcls convert``: weights of timm, torchvision or the 2020 project as a checkpoint of imgcls."""

import argparse
from collections.abc import Sequence

from imgcls.cli import command
from imgcls.errors import UserError


@command(
    "Converts weights of another project into a checkpoint of imgcls and prints the config that fits them.",
    "imgcls convert --source timm mobilenetv1_100.safetensors mobilenetv1_100.pth",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Converts one file, writes the checkpoint and prints its config."""
    from imgcls.checkpoint import write_checkpoint
    from imgcls.checkpoint.foreign import SOURCES, convert, read_weights

    parser.add_argument(
        "--source",
        choices=SOURCES,
        required=True,
        help="origin of FILE: timm (mobilenetv1_100, mobilenetv1_125), torchvision (mobilenet_v2), "
        "upstream (checkpoints of the 2020 project)",
    )
    parser.add_argument("file", metavar="FILE", help="a .pth or .safetensors file")
    parser.add_argument("out", metavar="OUT", help="checkpoint to write, for MODEL.WEIGHTS")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read FILE even if it holds Python objects; reading them can run code in the file",
    )
    parser.add_argument("--raw", action="store_true", help="use the raw weights if FILE also has averaged ones")
    args = parser.parse_args(argv)
    checkpoint = read_weights(args.file, args.allow_pickle, args.raw)
    try:
        converted = convert(args.source, checkpoint)
    except UserError as error:
        raise UserError(f"{args.file} with --source {args.source}: {error}; give another FILE or --source") from error
    write_checkpoint(args.out, converted)
    print(f"{len(converted['model'])} tensors of {args.file} converted to {args.out}; its config:\n")
    print(converted["imgcls"]["cfg"], end="")
