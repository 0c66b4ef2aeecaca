"""Turns weights of timm, torchvision or the 2020 project into a checkpoint of imgcls and prints its config."""

import argparse

from imgcls.checkpoint import write_checkpoint
from imgcls.checkpoint.foreign import SOURCES, convert, read_weights
from imgcls.errors import UserError, exit_on_user_error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source",
        choices=SOURCES,
        required=True,
        help="where FILE is from: timm (mobilenetv1_100, mobilenetv1_125), torchvision (mobilenet_v2), "
        "upstream (checkpoints of the 2020 project)",
    )
    parser.add_argument("file", metavar="FILE", help="a .pth or .safetensors file")
    parser.add_argument("out", metavar="OUT", help="the checkpoint to write, for MODEL.WEIGHTS")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read FILE even if it holds Python objects; reading them can run code that is in it",
    )
    args = parser.parse_args()
    with exit_on_user_error():
        checkpoint = read_weights(args.file, args.allow_pickle)
        try:
            converted = convert(args.source, checkpoint)
        except UserError as error:
            raise UserError(
                f"{args.file} with --source {args.source}: {error}; give another FILE or --source"
            ) from error
        write_checkpoint(args.out, converted)
        print(f"{len(converted['model'])} tensors of {args.file} converted to {args.out}; its config:\n")
        print(converted["imgcls"]["cfg"], end="")


if __name__ == "__main__":
    main()
