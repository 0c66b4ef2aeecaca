"""Lists ImageNet's pictures in the JSON files that ``imagenet_train`` and ``imagenet_val`` read."""

import argparse
from pathlib import Path

from imgcls.data.datasets.imagenet import make_imagenet_json
from imgcls.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train and val",
    )
    parser.add_argument(
        "--save", type=Path, required=True, help="folder for the JSON files: DETECTRON2_DATASETS/ImageNet2012"
    )
    args = parser.parse_args()
    with exit_on_user_error():
        for path in make_imagenet_json(args.root, args.save):
            print(path)


if __name__ == "__main__":
    main()
