"""``imgcls export-backbone``: the backbone of a classifier's checkpoint, as a file that detectron2 loads."""

import argparse
import logging
import sys
from collections.abc import Sequence

from imgcls.cli import command
from imgcls.errors import UserError

# Tensors that are listed one by one if a backbone does not fit.
_SHOWN = 10


@command(
    "Writes the backbone of a classifier's checkpoint as a file that detectron2 loads into a detector.",
    "imgcls export-backbone output/model_final.pth backbone.pth \\\n"
    "      --verify COCO-Detection/retinanet_mnetv1_FPN_1x.yaml",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Writes the backbone; with ``--verify``, only after it has been loaded into a detector and compared."""
    parser.add_argument("source", metavar="CHECKPOINT", help="of a classifier, from either trainer or the 2020 project")
    parser.add_argument("target", metavar="BACKBONE", help="file to write")
    parser.add_argument(
        "--verify", metavar="CONFIG", help="load it into the detector of this config (or model zoo name) and compare"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read CHECKPOINT even if it holds Python objects; reading them can run code in the file",
    )
    parser.add_argument("--raw", action="store_true", help="use the raw weights if CHECKPOINT also has averaged ones")
    parser.add_argument("opts", metavar="KEY VALUE", nargs="*", help="settings that replace those of CONFIG")
    args = parser.parse_intermixed_args(argv)

    from imgcls.checkpoint import HandoffError, export_backbone
    from imgcls.config import check_cfg, load_cfg
    from imgcls.model_zoo import find_config_file

    if args.opts and not args.verify:
        raise UserError(f"{' '.join(args.opts)}: settings for a detector's config; name it with --verify CONFIG")
    cfg = load_cfg(find_config_file(args.verify, "--verify"), args.opts) if args.verify else None
    if cfg:
        check_cfg(cfg)
    # detectron2 warns about each tensor of FPN and heads, which a classifier does not have. The comparison below
    # reports what matters.
    logger = logging.getLogger("fvcore.common.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        print(export_backbone(args.source, args.target, cfg, args.allow_pickle, args.raw))
    except HandoffError as error:
        problems = error.report.problems()
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        print(*problems[:_SHOWN], *more, sep="\n", file=sys.stderr)
        raise
    finally:
        logger.setLevel(level)
