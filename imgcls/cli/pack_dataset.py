"""``imgcls pack``: a dataset as WebDataset tar shards, for the dataset name ``shards:OUT/{000000..000127}.tar``."""

import argparse
import os
import re
from collections.abc import Sequence
from types import MappingProxyType

from imgcls.cli import make_parser
from imgcls.errors import UserError, exit_on_user_error

_UNITS = MappingProxyType({"": 1, "K": 10**3, "M": 10**6, "G": 10**9})


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Packs a dataset, verifies one, or both, and prints the dataset name of the shards.

    Args:
        argv: the arguments; None for those of the process.
        prog: name of the command in the help.

    Raises:
        SystemExit: with code 2 after one line on stderr, for a mistake of the user.
    """
    parser = make_parser(
        prog, "Packs a dataset into WebDataset tar shards.", "imgcls pack folder:images/train packed/train --verify"
    )
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a dataset name, such as folder:PATH")
    parser.add_argument("out", metavar="OUT", help="a new folder, or one of an interrupted call, which is completed")
    parser.add_argument("--short-side", type=int, default=256, help="larger images are shrunk to it (default: 256)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG files (default: 90)")
    parser.add_argument("--shard-size", default="256MB", help="approximate size of a tar file (default: 256MB)")
    parser.add_argument("-j", "--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out images that cannot be read")
    parser.add_argument("--verify", action="store_true", help="read OUT again and check it; without SOURCE only that")
    args = parser.parse_args(argv)
    if args.source is None and not args.verify:
        parser.error("SOURCE is missing")
    with exit_on_user_error():
        if args.source is not None:
            _pack(args)
        if args.verify:
            from imgcls.data.shards.verify import verify_shards

            print(f"{args.out}: {verify_shards(args.out, args.processes)} images are as they were packed")


def _pack(args: argparse.Namespace) -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise UserError('packing needs webdataset: pip install -e ".[shards]"') from None
    from imgcls.data.shards.pack import pack_dataset

    index = pack_dataset(
        args.source,
        args.out,
        short_side=args.short_side,
        quality=args.quality,
        shard_size=_parse_size(args.shard_size),
        skip_bad_images=args.skip_bad_images,
        processes=args.processes,
    )
    shards = [shard["name"].removesuffix(".tar") for shard in index["shards"]]
    names = f"{{{shards[0]}..{shards[-1]}}}" if len(shards) > 1 else shards[0]
    size = sum(shard["bytes"] for shard in index["shards"])
    left_out = f", {index['left_out']} left out" if index["left_out"] else ""
    print(f"{index['samples']} images in {len(shards)} shards, {size / 1e6:.1f} MB{left_out}")
    print(f"shards:{os.path.join(args.out, names)}.tar")


def _parse_size(text: str) -> int:
    """Bytes of a text such as ``256MB``."""
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if not match:
        raise UserError(f"--shard-size is {text!r}; expected bytes, or a number with KB, MB or GB")
    return int(match[1]) * _UNITS[match[2]]
