"""Makes the detection set canvas_train and canvas_test: real items pasted on photographs, with exact boxes."""

import argparse
from pathlib import Path

from transfer.make import make_canvas
from transfer.sources import find_items

from imgcls.disk import datasets_root
from imgcls.errors import exit_on_user_error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="new or empty folder (default: DETECTRON2_DATASETS/canvas)"
    )
    parser.add_argument(
        "--items",
        choices=("fashion_mnist", "digits"),
        help="what is pasted (default: digits where Fashion-MNIST is absent)",
    )
    parser.add_argument("--train", metavar="N", type=int, default=1200, help="training images (default: %(default)s)")
    parser.add_argument("--test", metavar="N", type=int, default=300, help="test images (default: %(default)s)")
    parser.add_argument(
        "--size", metavar="PIXELS", type=int, default=160, help="side of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="another seed gives another set (default: %(default)s)"
    )
    args = parser.parse_args()
    with exit_on_user_error():
        out = args.out or datasets_root() / "canvas"
        items = args.items or find_items()
        print(f"items: {items}")
        written = make_canvas(out, items, args.train, args.test, args.size, args.seed)
        print(f"{out}: {args.train} train and {args.test} test images {'written' if written else 'are there already'}")


if __name__ == "__main__":
    main()
