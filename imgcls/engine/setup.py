"""From a command line to a checked, frozen config and a prepared process."""

import argparse
import logging
import os
import tempfile
from collections import Counter

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from imgcls.checkpoint import saved_seed
from imgcls.config import check_cfg, load_cfg
from imgcls.data.catalog import get_datasets
from imgcls.data.dataset import Dataset, check_labels, label_counts
from imgcls.engine.launch import usable_device
from imgcls.errors import UserError
from imgcls.solver import iterations

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


def resolve_from_data(cfg: CfgNode) -> None:
    """Reads the sets of ``DATASETS``, checks them against the config, and fills in what was left to them.

    ``MODEL.CLSNET.NUM_CLASSES`` -1 becomes the number of classes of the training set and ``POS_WEIGHT`` "auto"
    becomes negatives / positives of each class there. Lengths in epochs are turned into iterations.

    Raises:
        ValueError: labels that do not fit the head or the class count; a test set with classes of its own.
        FileNotFoundError: a set that is not there.
    """
    train, test = get_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    resolve_epochs(cfg.SOLVER, sum(len(dataset.records) for dataset in train))
    clsnet = cfg.MODEL.CLSNET
    if clsnet.NUM_CLASSES == -1:
        clsnet.NUM_CLASSES = len(train[0].classes)
        _logger.info("MODEL.CLSNET.NUM_CLASSES: %d, taken from the data", clsnet.NUM_CLASSES)
    for dataset in (*train, *test):
        check_labels(dataset, clsnet.NUM_CLASSES, clsnet.HEAD == "sigmoid")
    if clsnet.POS_WEIGHT == "auto":
        clsnet.POS_WEIGHT = positive_weights(train)


def resolve_epochs(solver: CfgNode, num_images: int) -> None:
    """``EPOCHS``, ``WARMUP_EPOCHS`` and ``STEP_EPOCHS``, where they are given, set their likes in iterations."""

    def count(epochs: int) -> int:
        return iterations(epochs, num_images, solver.IMS_PER_BATCH)

    if solver.EPOCHS:
        solver.MAX_ITER = count(solver.EPOCHS)
        _logger.info("SOLVER.MAX_ITER: %d, which is %d epochs of %d images", solver.MAX_ITER, solver.EPOCHS, num_images)
    if solver.WARMUP_EPOCHS >= 0:
        solver.WARMUP_ITERS = count(solver.WARMUP_EPOCHS)
    if solver.STEP_EPOCHS:
        solver.STEPS = tuple(map(count, solver.STEP_EPOCHS))


def positive_weights(datasets: list[Dataset]) -> list[float]:
    """Negatives / positives of each class over multi-label sets; 1.0 for a class without a positive, with a warning."""
    positives = sum((label_counts(dataset.records) for dataset in datasets), Counter())
    total = sum(len(dataset.records) for dataset in datasets)
    classes = datasets[0].classes
    missing = [name for label, name in enumerate(classes) if not positives[label]]
    if missing:
        _logger.warning("no training image has the classes %s; their POS_WEIGHT is 1.0", missing)
    # A class that every image has would get 0, which is no weight: half a negative keeps it above.
    weights = [
        round(max(total - positives[label], 0.5) / positives[label], 4) if positives[label] else 1.0
        for label in range(len(classes))
    ]
    _logger.info("MODEL.CLSNET.POS_WEIGHT from the training set: %s", dict(zip(classes, weights, strict=True)))
    return weights
