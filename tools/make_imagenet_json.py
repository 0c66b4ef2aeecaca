"""Lists ImageNet's images in the JSON files of ``imagenet_train`` and ``imagenet_val``, and indexes JSON files.

The index is a file beside its JSON and is read instead of it: training starts at once and takes less memory.

    python tools/make_imagenet_json.py --root FOLDER --save FOLDER [--index]
    python tools/make_imagenet_json.py --index FILE.json [FILE.json ...]
"""

import argparse
from pathlib import Path

from imgcls.data.readers.imagenet import make_imagenet_json
from imgcls.data.readers.json_file import index_json
from imgcls.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train and val"
    )
    parser.add_argument("--save", type=Path, help="folder for the JSON files: DETECTRON2_DATASETS/ImageNet2012")
    parser.add_argument(
        "--index",
        metavar="FILE.json",
        nargs="*",
        help="write the index of these JSON files of records; without files, of what --root and --save make",
    )
    args = parser.parse_args()
    if args.index and (args.root or args.save):
        parser.error("--index with files goes without --root and --save")
    if not args.index and not (args.root and args.save):
        parser.error("needs --root and --save, or --index with the JSON files to index")
    with exit_on_user_error():
        if args.index:
            for path in args.index:
                print(index_json(path))
        else:
            for path in make_imagenet_json(args.root, args.save, index=args.index is not None):
                print(path)


if __name__ == "__main__":
    main()
