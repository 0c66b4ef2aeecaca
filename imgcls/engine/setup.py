"""From a command line to a checked, frozen config and a prepared process."""

import argparse
import logging
import os
import tempfile

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from imgcls.checkpoint import saved_seed
from imgcls.config import check_cfg, load_cfg
from imgcls.errors import UserError

from .launch import usable_device
from .resolve import resolve_from_data

_logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """Loads and checks the config, chooses the device, reads the data's classes, and runs ``default_setup``.

    Args:
        args: of detectron2's ``default_argument_parser``.

    Raises:
        ValueError: config, data or output folder that cannot be used.
        FileNotFoundError: a config or data file that is not there.
    """
    cfg = load_cfg(args.config_file, args.opts)
    check_cfg(cfg)
    _check_writable(cfg.OUTPUT_DIR)
    # default_setup sets up "detectron2" and "fvcore"; ours is the third name, into the same log file.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="imgcls")
    choose_device(cfg, args.num_gpus)
    choose_seed(cfg, args.resume)
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        resolve_from_data(cfg)
        check_cfg(cfg)  # again: some values are checked against the class count
    elif cfg.SOLVER.EPOCHS:
        raise UserError(
            f"SOLVER.EPOCHS is {cfg.SOLVER.EPOCHS} for a {cfg.MODEL.META_ARCHITECTURE}; epochs are for a ClsNet, "
            "set SOLVER.MAX_ITER"
        )
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def choose_device(cfg: CfgNode, num_gpus: int) -> None:
    """``MODEL.DEVICE`` "cuda" becomes "cpu" where ``--num-gpus`` is 0 (asked for) or there is no GPU (a warning)."""
    device = usable_device(cfg.MODEL.DEVICE, num_gpus)
    if device != cfg.MODEL.DEVICE and num_gpus > 0:
        count = comm.get_world_size()
        _logger.warning("--num-gpus %d, but there is no GPU: running on the CPU (processes: %d)", num_gpus, count)
    cfg.MODEL.DEVICE = device


def choose_seed(cfg: CfgNode, resume: bool | str = False) -> None:
    """A negative ``SEED`` becomes the one of the run that is resumed, or a new one, which config.yaml then tells.

    Args:
        resume: a checkpoint or a folder of them; True for those in ``OUTPUT_DIR``.
    """
    if cfg.SEED < 0 and resume:
        path = resume if isinstance(resume, str) else cfg.OUTPUT_DIR
        cfg.SEED = saved_seed(path if os.path.isdir(path) else os.path.dirname(path))
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()


def _check_writable(folder: str) -> None:
    """Finds out before an hour of training, not after it, that the results cannot be written."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder}: cannot be written to ({error.strerror}); name another folder") from error
