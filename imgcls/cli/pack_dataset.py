"""``imgcls pack``: a dataset as WebDataset tar shards, for the dataset name ``shards:OUT/{000000..000127}.tar``."""

import argparse
import os
import re
from collections.abc import Sequence
from types import MappingProxyType

from imgcls.cli import command
from imgcls.errors import UserError

_UNITS = MappingProxyType({"": 1, "K": 10**3, "M": 10**6, "G": 10**9})


@command("Packs a dataset into WebDataset tar shards.", "imgcls pack folder:images/train packed/train --verify")
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Packs a dataset, verifies one, or both, and prints the dataset name of the shards."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a dataset name, such as folder:PATH")
    parser.add_argument("out", metavar="OUT", help="a new folder, or that of an interrupted call, which is resumed")
    parser.add_argument("--short-side", type=int, default=256, help="larger images are shrunk to it (default: 256)")
    parser.add_argument("--quality", type=int, default=90, help="quality of the JPEG files (default: 90)")
    parser.add_argument("--shard-size", default="256MB", help="approximate size of a tar file (default: 256MB)")
    parser.add_argument("-j", "--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out images that cannot be read")
    parser.add_argument("--verify", action="store_true", help="read OUT back and check it; without SOURCE, only that")
    args = parser.parse_args(argv)
    if args.source is None and not args.verify:
        parser.error("SOURCE is missing")
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
    """Converts a size such as ``256MB`` to bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if not match:
        raise UserError(f"--shard-size is {text!r}; expected bytes, or a number with KB, MB or GB")
    return int(match[1]) * _UNITS[match[2]]
