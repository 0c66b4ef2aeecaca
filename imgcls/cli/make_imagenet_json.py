"""``imgcls make-imagenet-json``: ImageNet's images in JSON files, and indexes of JSON files."""

from collections.abc import Sequence
from pathlib import Path

from imgcls.cli import make_parser
from imgcls.errors import exit_on_user_error

_DESCRIPTION = """\
Lists ImageNet's images in the JSON files of the datasets imagenet_train and imagenet_val, and indexes JSON files.
An index is a folder beside its JSON file. It is read instead of the file, starts faster and takes less memory.
"""
_EXAMPLES = """\
imgcls make-imagenet-json --root FOLDER --save datasets/ImageNet2012 --index
  imgcls make-imagenet-json --index FILE.json"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Writes the files and prints their paths, one per line.

    Args:
        argv: the arguments; None for those of the process.
        prog: name of the command in the help.

    Raises:
        SystemExit: with code 2 after one line on stderr, for a mistake of the user.
    """
    parser = make_parser(prog, _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "--root", type=Path, help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train and val"
    )
    parser.add_argument("--save", type=Path, help="folder for the JSON files: DETECTRON2_DATASETS/ImageNet2012")
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
    with exit_on_user_error():
        from imgcls.data.readers.imagenet import make_imagenet_json
        from imgcls.data.readers.json_file import index_json

        if args.index:
            for path in args.index:
                print(index_json(path))
        else:
            for path in make_imagenet_json(args.root, args.save, index=args.index is not None):
                print(path)
