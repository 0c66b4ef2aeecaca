"""``imgcls make-imagenet-json``: ImageNet's images in JSON files, and indexes of JSON files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from imgcls.cli import command


@command(
    "Lists ImageNet's images in the JSON files of the datasets imagenet_train and imagenet_val, and indexes JSON "
    "files.\nAn index is a folder beside its JSON file. Training reads it instead of the file, which is faster and "
    "takes less memory.\n",
    "imgcls make-imagenet-json --root FOLDER --save datasets/ImageNet2012 --index\n"
    "  imgcls make-imagenet-json --index FILE.json",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Writes the files and prints their paths, one per line."""
    parser.add_argument(
        "--root", type=Path, help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train and val"
    )
    parser.add_argument(
        "--save", type=Path, help="folder for the JSON files; imgcls expects them in DETECTRON2_DATASETS/ImageNet2012"
    )
    parser.add_argument(
        "--index",
        metavar="FILE.json",
        nargs="*",
        help="write the indexes of these JSON files; without a file, of those that --root and --save make",
    )
    args = parser.parse_args(argv)
    if args.index and (args.root or args.save):
        parser.error("--index with files excludes --root and --save")
    if not args.index and not (args.root and args.save):
        parser.error("needs --root and --save, or --index with the JSON files to index")

    from imgcls.data.readers.imagenet import make_imagenet_json
    from imgcls.data.readers.json_file import index_json

    if args.index:
        for path in args.index:
            print(index_json(path))
    else:
        print(*make_imagenet_json(args.root, args.save, index=args.index is not None), sep="\n")
