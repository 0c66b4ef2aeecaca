"""``imgcls convert``: weights of timm, torchvision or the 2020 project as a checkpoint of imgcls."""

from collections.abc import Sequence

from imgcls.cli import make_parser
from imgcls.errors import UserError, exit_on_user_error


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Converts one file, writes the checkpoint and prints its config.

    Args:
        argv: the arguments; None for those of the process.
        prog: name of the command in the help.

    Raises:
        SystemExit: with code 2 after one line on stderr, for a mistake of the user.
    """
    from imgcls.checkpoint import write_checkpoint
    from imgcls.checkpoint.foreign import SOURCES, convert, read_weights

    parser = make_parser(
        prog,
        "Converts weights of another project into a checkpoint of imgcls and prints the config that fits them.",
        "imgcls convert --source timm mobilenetv1_100.safetensors mobilenetv1_100.pth",
    )
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
    with exit_on_user_error():
        checkpoint = read_weights(args.file, args.allow_pickle, args.raw)
        try:
            converted = convert(args.source, checkpoint)
        except UserError as error:
            raise UserError(
                f"{args.file} with --source {args.source}: {error}; give another FILE or --source"
            ) from error
        write_checkpoint(args.out, converted)
        print(f"{len(converted['model'])} tensors of {args.file} converted to {args.out}; its config:\n")
        print(converted["imgcls"]["cfg"], end="")
