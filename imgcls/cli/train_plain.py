"""``imgcls train-plain``: a plain PyTorch loop with the flags of PyTorch's ImageNet example, on top of a config."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from imgcls.cli.train import add_common_flags, start, take_config_file
from imgcls.errors import UserError, UserFileNotFoundError, exit_on_user_error

_EXAMPLE = """\
example:
  imgcls train-plain --config-file ImageNet/mnetv1_050.yaml --epochs 90 -b 256 --lr 0.1 \\
      images MODEL.CLSNET.NUM_CLASSES -1
"""

# Flags that set a config key: their names, type, key, help.
_KEYS = (
    (("-j", "--workers"), int, "DATALOADER.NUM_WORKERS", "loader workers of each process"),
    (("--epochs",), int, "SOLVER.EPOCHS", "length of the run"),
    (("-b", "--batch-size"), int, "SOLVER.IMS_PER_BATCH", "images per iteration, over all processes"),
    (("--lr", "--learning-rate"), float, "SOLVER.BASE_LR", "peak learning rate"),
    (("--momentum",), float, "SOLVER.MOMENTUM", ""),
    (("--wd", "--weight-decay"), float, "SOLVER.WEIGHT_DECAY", ""),
    (("-p", "--print-freq"), int, "SOLVER.LOG_PERIOD", "iterations between log lines"),
    (("--seed",), int, "SEED", "seed of all random numbers"),
)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Trains or evaluates in the plain loop."""
    with exit_on_user_error():
        args = parse_args(argv, prog)
        start(run_process, args, args.dist_backend)


def run_process(args: argparse.Namespace) -> Any:
    """Sets up one process of the run, then evaluates or trains."""
    from imgcls.engine import PlainTrainer, Trainer, evaluate, log_summary, setup

    with setup(args) as run:
        if args.pretrained and not run.cfg.MODEL.WEIGHTS:
            raise UserError("--pretrained needs weights and MODEL.WEIGHTS is empty; set it to a checkpoint")
        if args.eval_only:
            return evaluate(Trainer, run.cfg, run.datasets, allow_pickle=args.allow_pickle)
        trainer = PlainTrainer(run.cfg, run.datasets, args.allow_pickle)
        trainer.load(args.resume, args.start_epoch)
        # With --start-epoch, a new run starts in the middle, too.
        log_summary(run.cfg, trainer.datasets, trainer.model, trainer.run_state.first if args.resume else 0)
        return trainer.train()


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Turns the flags into the arguments that ``engine.setup`` reads (``config_file``, ``opts``, ``num_gpus``, ...).

    ``opts`` holds the data folder, then the ``KEY VALUE`` pairs, then the flags; a later setting replaces an earlier
    one.

    Raises:
        UserError: a folder without training and validation images, or flags that contradict each other.
    """
    args = _parser(prog).parse_intermixed_args(argv)
    rest = args.rest
    take_config_file(args, rest)
    if not args.config_file:
        raise UserError("--config-file is missing; give a YAML file, or a name of the model zoo")
    data = _data_opts(rest.pop(0)) if len(rest) % 2 else []
    flags = [part for _, _, key, _ in _KEYS if (value := getattr(args, key)) is not None for part in (key, repr(value))]
    args.num_gpus = 1
    if args.multiprocessing_distributed:
        import torch

        args.num_gpus = max(1, torch.cuda.device_count())
        if args.gpu is not None:
            raise UserError("--gpu selects one GPU; leave it out with --multiprocessing-distributed, which uses all")
    if args.gpu is not None:
        flags += ["MODEL.DEVICE", f"cuda:{args.gpu}"]
    if args.evaluate and args.resume:
        from imgcls.checkpoint import find_newest

        flags += ["MODEL.WEIGHTS", find_newest(args.resume) if os.path.isdir(args.resume) else args.resume]
    args.opts = [*data, *rest, *flags]
    args.eval_only, args.num_machines, args.machine_rank = args.evaluate, args.world_size, args.rank
    return args


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Trains or evaluates a classifier in a plain PyTorch loop. "
        "Flags that are not given keep the value of the config.",
        usage="%(prog)s --config-file FILE [flags] [DATA_DIR] [KEY VALUE ...]",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="a YAML file, or a name of the model zoo")
    for flags, kind, key, text in _KEYS:
        parser.add_argument(*flags, type=kind, dest=key, metavar="N", help=f"{key}: {text}" if text else key)
    add = parser.add_argument
    add("--start-epoch", type=int, default=0, metavar="N", help="first epoch, counted from 0")
    add("--resume", default="", metavar="PATH", help="checkpoint to resume from, or a folder of checkpoints")
    add("-e", "--evaluate", action="store_true", help="only evaluate the weights of --resume or MODEL.WEIGHTS")
    add("--pretrained", action="store_true", help="fail if MODEL.WEIGHTS is empty")
    add("--gpu", type=int, metavar="N", help="index of the one GPU to use")
    add("--multiprocessing-distributed", action="store_true", help="one process for each GPU of this machine")
    add("--world-size", type=int, default=1, metavar="N", help="number of machines")
    add("--rank", type=int, default=0, metavar="N", help="index of this machine, counted from 0")
    add("--dist-url", default="auto", metavar="URL", help="where the machines connect, such as tcp://10.0.0.1:29500")
    add("--dist-backend", metavar="NAME", help="nccl or gloo (default: nccl on GPUs, gloo on the CPU)")
    add_common_flags(parser)
    add("rest", nargs="*", metavar="DATA_DIR KEY VALUE", help="folder with train and val, then config keys and values")
    return parser


def _data_opts(folder: str) -> list[str]:
    """Returns the ``DATASETS`` settings for a folder laid out like ImageNet."""
    for prefix in ("ILSVRC2012_img_", ""):
        train, val = (os.path.join(folder, prefix + split) for split in ("train", "val"))
        if os.path.isdir(train) and os.path.isdir(val):
            return ["DATASETS.TRAIN", repr((f"folder:{train}",)), "DATASETS.TEST", repr((f"folder:{val}",))]
    raise UserFileNotFoundError(
        f"{folder}: DATA_DIR must hold the folders train and val, or ILSVRC2012_img_train and ILSVRC2012_img_val"
    )
