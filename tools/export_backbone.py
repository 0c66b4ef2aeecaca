#!/usr/bin/env python
"""Writes the backbone of a classifier's checkpoint as a file that detectron2 loads into a detector.

python tools/export_backbone.py output/model_final.pth backbone.pth --verify configs/COCO-Detection/X.yaml
"""

import argparse
import logging
import sys

import imgcls  # noqa: F401  (registers the backbones)
from imgcls.checkpoint import HandoffError, export_backbone
from imgcls.config import check_cfg, load_cfg
from imgcls.errors import UserError, exit_on_user_error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="CHECKPOINT", help="a classifier's, of either trainer or the 2020 project")
    parser.add_argument("target", metavar="BACKBONE", help="the file to write")
    parser.add_argument("--verify", metavar="CONFIG", help="load it into the detector of this config and compare")
    parser.add_argument("--allow-pickle", action="store_true", help="read files that can run code; know their author")
    parser.add_argument("opts", metavar="KEY VALUE", nargs="*", help="changes to the detector's config")
    args = parser.parse_intermixed_args()
    # detectron2 warns at length of FPN and heads, which no classifier has; the comparison says what counts.
    logging.getLogger("fvcore.common.checkpoint").setLevel(logging.ERROR)
    with exit_on_user_error():
        if args.opts and not args.verify:
            raise UserError(
                f"{' '.join(args.opts)}: changes to a detector's config, and none is named; add --verify CONFIG"
            )
        cfg = load_cfg(args.verify, args.opts) if args.verify else None
        if cfg:
            check_cfg(cfg)
        try:
            print(export_backbone(args.source, args.target, cfg, args.allow_pickle))
        except HandoffError as error:
            print(*error.report.problems(), sep="\n", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
