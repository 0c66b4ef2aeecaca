#!/usr/bin/env python
"""Makes the detection set synthetic_train and synthetic_test: small images pasted on photographs, with exact boxes."""

import argparse
from pathlib import Path

from transfer.make import make_detection_set
from transfer.sources import ITEMS, find_items
from transfer.synthetic import default_folder

from imgcls.errors import exit_on_user_error


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="new or empty folder (default: DETECTRON2_DATASETS/synthetic)"
    )
    parser.add_argument(
        "--items", choices=ITEMS, help="what is pasted (default: fashion_mnist, or digits if that is not installed)"
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
        out = args.out or default_folder()
        items = args.items or find_items()
        print(f"items: {items}")
        written = make_detection_set(out, items, args.train, args.test, args.size, args.seed)
        counts = f"{args.train} training and {args.test} test images"
        print(f"{out}: {counts} {'written' if written else 'already exist'}")


if __name__ == "__main__":
    main()
