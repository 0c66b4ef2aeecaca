"""The command line of the plain trainer: the flags of PyTorch's ImageNet example, on top of a config."""

import argparse
import os
from collections.abc import Sequence

import torch

from imgcls.checkpoint import find_newest
from imgcls.errors import UserError, UserFileNotFoundError

# Flags that are another name for a key: flag names, type, key.
_KEYS = (
    (("-j", "--workers"), int, "DATALOADER.NUM_WORKERS", "loader processes of each process"),
    (("--epochs",), int, "SOLVER.EPOCHS", "length of the run"),
    (("-b", "--batch-size"), int, "SOLVER.IMS_PER_BATCH", "images an iteration, of all processes together"),
    (("--lr", "--learning-rate"), float, "SOLVER.BASE_LR", "learning rate at its highest"),
    (("--momentum",), float, "SOLVER.MOMENTUM", ""),
    (("--wd", "--weight-decay"), float, "SOLVER.WEIGHT_DECAY", ""),
    (("-p", "--print-freq"), int, "SOLVER.LOG_PERIOD", "iterations from line to line"),
    (("--seed",), int, "SEED", "of everything random"),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments as ``engine.setup`` reads them (``config_file``, ``opts``, ``num_gpus``, ...), made from our flags.

    ``opts`` holds, in this order, so that the later wins: the data folder, the ``KEY VALUE`` pairs, the flags given.

    Raises:
        ValueError: a folder without training and validation images, or flags that contradict each other.
    """
    args = _parser().parse_intermixed_args(argv)
    rest = args.rest
    data = _data_opts(rest.pop(0)) if len(rest) % 2 else []
    flags = [part for _, _, key, _ in _KEYS if (value := getattr(args, key)) is not None for part in (key, repr(value))]
    args.num_gpus = max(1, torch.cuda.device_count()) if args.multiprocessing_distributed else 1
    if args.gpu is not None:
        if args.multiprocessing_distributed:
            raise UserError("--gpu is for one process; leave it out with --multiprocessing-distributed")
        flags += ["MODEL.DEVICE", f"cuda:{args.gpu}"]
    if args.evaluate and args.resume:
        flags += ["MODEL.WEIGHTS", find_newest(args.resume) if os.path.isdir(args.resume) else args.resume]
    args.opts = [*data, *rest, *flags]
    args.eval_only = args.evaluate
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trains a ClsNet in one plain loop. A flag that is not given takes its value from the config.",
        usage="%(prog)s --config-file FILE [flags] [DATA_DIR] [KEY VALUE ...]",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    for flags, kind, key, text in _KEYS:
        parser.add_argument(*flags, type=kind, dest=key, metavar="N", help=f"{key}: {text}" if text else key)
    add = parser.add_argument
    add("--start-epoch", type=int, default=0, metavar="N", help="epoch to start in, counted from 0")
    add("--resume", default="", metavar="PATH", help="checkpoint to go on from, or a folder of them")
    add("-e", "--evaluate", action="store_true", help="score --resume's or MODEL.WEIGHTS' weights, without training")
    add("--pretrained", action="store_true", help="insist on MODEL.WEIGHTS, to start from")
    add("--gpu", type=int, metavar="N", help="the one GPU to use")
    add("--multiprocessing-distributed", action="store_true", help="one process for each GPU of this machine")
    add("--world-size", type=int, default=1, metavar="N", help="number of machines")
    add("--rank", type=int, default=0, metavar="N", help="of this machine, counted from 0")
    add("--dist-url", default="auto", metavar="URL", help="where all machines meet, such as tcp://10.0.0.1:29500")
    add("--dist-backend", metavar="NAME", help="nccl or gloo; by default what the device needs")
    add("rest", nargs="*", metavar="DATA_DIR KEY VALUE", help="folder with train and val, then keys of the config")
    return parser


def _data_opts(folder: str) -> list[str]:
    """``folder:`` names of the two sets in an ImageNet folder, or one laid out like it."""
    for prefix in ("ILSVRC2012_img_", ""):
        train, val = (os.path.join(folder, prefix + split) for split in ("train", "val"))
        if os.path.isdir(train) and os.path.isdir(val):
            return ["DATASETS.TRAIN", repr((f"folder:{train}",)), "DATASETS.TEST", repr((f"folder:{val}",))]
    raise UserFileNotFoundError(
        f"{folder}: DATA_DIR must hold the folders train and val, or ILSVRC2012_img_train and ILSVRC2012_img_val"
    )
