"""From a command line to a checked, frozen config, datasets that were read once, and a prepared process."""

import argparse
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from imgcls.checkpoint import RunLock, check_resume_path, lock_run_folder, saved_seed
from imgcls.config import check_best_metric, check_cfg, load_cfg
from imgcls.data.dataset import Datasets
from imgcls.disk import write_text
from imgcls.engine.build import is_classifier
from imgcls.engine.console import FILE_ONLY, filter_console
from imgcls.engine.launch import usable_device
from imgcls.engine.loggers import check_loggers
from imgcls.engine.resolve import adopt_preprocessing, hold_out, resolve_from_data
from imgcls.errors import UserError

_logger = logging.getLogger(__name__)


@dataclass
class RunSetup:
    """What a run starts with. At the end of a ``with`` block it unlocks the run's folder for other runs.

    Attributes:
        cfg: checked and frozen.
        datasets: the sets of ``DATASETS``; None for a detector.
        lock: of the run's folder; only on the main process of a training run.
    """

    cfg: CfgNode
    datasets: Datasets | None
    lock: RunLock | None = None

    def __enter__(self) -> "RunSetup":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.lock is not None:
            self.lock.release()


def setup(args: argparse.Namespace) -> RunSetup:
    """Loads and checks the config, chooses the device and the seed, reads the data, and starts the logs.

    A training locks ``OUTPUT_DIR`` and writes ``config.yaml`` there. An evaluation leaves that file as it is and writes
    its own to ``inference/config.yaml``.

    Args:
        args: of detectron2's ``default_argument_parser``.

    Raises:
        UserError: config, data or output folder cannot be used, or another run uses the folder.
        UserFileNotFoundError: a config or data file is missing.
    """
    cfg = load_cfg(args.config_file, args.opts)
    check_cfg(cfg)
    if isinstance(args.resume, str) and args.resume and not _is_same(args.resume, cfg.OUTPUT_DIR):
        check_resume_path(args.resume)
    _check_writable(cfg.OUTPUT_DIR)
    lock = None
    if not args.eval_only:
        check_best_metric(cfg)  # before the data is read, which may take long
        check_loggers(cfg)
        lock = lock_run_folder(cfg.OUTPUT_DIR) if comm.is_main_process() else None
    try:
        for name in ("detectron2", "fvcore", "imgcls"):
            setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)
        filter_console(brief=is_classifier(cfg) and not args.eval_only)
        choose_device(cfg, args.num_gpus)
        choose_seed(cfg, args.resume)
        datasets = None
        if is_classifier(cfg):
            hold_out(cfg)
            adopt_preprocessing(cfg, args.resume)
            datasets = resolve_from_data(cfg)
            check_cfg(cfg, resolved=True)  # again, because some checks need the values that come from the data
            if not args.eval_only:
                check_best_metric(cfg)
        cfg.freeze()
        _start(cfg, args)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return RunSetup(cfg, datasets, lock)


def _is_same(path: str, folder: str) -> bool:
    """Also for a folder that does not exist yet: a run that is requeued before its first checkpoint starts again."""
    return os.path.realpath(path) == os.path.realpath(folder)


def _start(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Like detectron2's ``default_setup``, but log.txt has no colours and an evaluation keeps the run's config.yaml."""
    rank = comm.get_rank()
    _logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size(), extra=FILE_ONLY)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no CUDA
    _logger.info("Environment info:\n%s", collect_env_info(), extra=FILE_ONLY)
    _logger.info("Command line arguments: %s", args, extra=FILE_ONLY)
    _logger.info("Running with full config:\n%s", cfg.dump(), extra=FILE_ONLY)
    if comm.is_main_process():
        folder = os.path.join(cfg.OUTPUT_DIR, "inference") if args.eval_only else cfg.OUTPUT_DIR
        write_text(Path(folder, "config.yaml"), cfg.dump())
    if cfg.MODEL.COMPILE and cfg.MODEL.DEVICE == "cpu":
        _logger.warning(
            "MODEL.COMPILE on a CPU: compiling takes minutes, and the step may not get faster (0.96x to 1.3x was "
            "measured); compare with python tools/benchmark.py compile"
        )
    seed_all_rng(cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def choose_device(cfg: CfgNode, num_gpus: int) -> None:
    """Changes ``MODEL.DEVICE`` "cuda" to "cpu" if no GPU was asked for, or if there is none (with a warning)."""
    device = usable_device(cfg.MODEL.DEVICE, num_gpus)
    if device != cfg.MODEL.DEVICE and num_gpus > 0:
        count = comm.get_world_size()
        _logger.warning("there is no GPU: running on the CPU (GPUs asked for: %d, processes: %d)", num_gpus, count)
    cfg.MODEL.DEVICE = device


def choose_seed(cfg: CfgNode, resume: bool | str = False) -> None:
    """Replaces a negative ``SEED`` by that of the resumed run, or by a random one, which config.yaml then records.

    ``resume`` is a checkpoint or a folder of them; True means ``OUTPUT_DIR``.
    """
    if cfg.SEED < 0 and resume:
        path = resume if isinstance(resume, str) else cfg.OUTPUT_DIR
        cfg.SEED = saved_seed(path if os.path.isdir(path) else os.path.dirname(path))
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()


def _check_writable(folder: str) -> None:
    """Refuses a folder that cannot be written to before the training starts, rather than at the first save."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder}: cannot be written to ({error.strerror}); name another folder") from error
