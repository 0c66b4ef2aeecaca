"""From a command line to a checked, frozen config and a prepared process."""

import argparse
import logging
import os
import tempfile

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from imgcls.config import check_cfg, load_cfg
from imgcls.errors import UserError

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
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        resolve_from_data(cfg)
        check_cfg(cfg)  # again: some values are checked against the class count
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def choose_device(cfg: CfgNode, num_gpus: int) -> None:
    """``MODEL.DEVICE`` "cuda" becomes "cpu" where ``--num-gpus`` is 0 (asked for) or there is no GPU (a warning)."""
    if cfg.MODEL.DEVICE.startswith("cuda"):
        if num_gpus > 0 and torch.cuda.is_available():
            return
        if num_gpus > 0:
            _logger.warning("--num-gpus %d, but there is no GPU: running one process on the CPU", num_gpus)
        cfg.MODEL.DEVICE = "cpu"
    if cfg.SOLVER.AMP.ENABLED:
        _logger.warning("SOLVER.AMP.ENABLED: detectron2's mixed precision needs a GPU, it is off")
        cfg.SOLVER.AMP.ENABLED = False


def _check_writable(folder: str) -> None:
    """Finds out before an hour of training, not after it, that the results cannot be written."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder}: cannot be written to ({error.strerror}); name another folder") from error
