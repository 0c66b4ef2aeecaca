"""Config values that come from the data or from the weights: classes, lengths, held-out images, preprocessing."""

import logging
import os
from collections import Counter
from collections.abc import Sequence

from detectron2.config import CfgNode

from imgcls.checkpoint import find_newest, read_checkpoint
from imgcls.data.catalog import read_datasets
from imgcls.data.dataset import Dataset, Datasets, check_labels, label_counts
from imgcls.data.split import parse_part, part_names
from imgcls.engine.console import DETAIL
from imgcls.errors import UserError
from imgcls.solver import iterations

_logger = logging.getLogger(__name__)


def hold_out(cfg: CfgNode) -> None:
    """Divides each training set by ``DATASETS.VAL_FRACTION``, where no test set is given.

    Raises:
        UserError: a training set is itself a part of a set.
    """
    data = cfg.DATASETS
    if not data.VAL_FRACTION or data.TEST:
        return
    parts = [name for name in data.TRAIN if parse_part(name)]
    if parts:
        raise UserError(
            f"DATASETS.VAL_FRACTION is {data.VAL_FRACTION}, but {parts[0]} in DATASETS.TRAIN is a part of a set "
            "already; name the whole set, or name the other part in DATASETS.TEST"
        )
    pairs = [part_names(name, data.VAL_FRACTION, cfg.SEED) for name in data.TRAIN]
    data.TRAIN, data.TEST = map(tuple, zip(*pairs, strict=True)) if pairs else ((), ())
    if pairs:
        _logger.info(
            "DATASETS.VAL_FRACTION %g: DATASETS.TEST is %s", data.VAL_FRACTION, ", ".join(data.TEST), extra=DETAIL
        )


def adopt_preprocessing(cfg: CfgNode, resume: bool | str = False) -> None:
    """With ``MODEL.WEIGHTS_PREPROCESSING`` "adopt", takes channel order, means and deviations from the weights.

    A resumed run takes those of its checkpoint. ``resume`` is as for `choose_seed`.

    Raises:
        UserError: the file does not say how its images were prepared.
        UserFileNotFoundError: there is no such file.
    """
    if cfg.MODEL.WEIGHTS_PREPROCESSING != "adopt":
        return
    resumed = (resume if isinstance(resume, str) else cfg.OUTPUT_DIR) if resume else ""
    path = (find_newest(resumed) if os.path.isdir(resumed) else resumed) or cfg.MODEL.WEIGHTS
    if not path or (path == resumed and not os.path.exists(path)):  # what is missing is reported when it is resumed
        return
    contract = read_checkpoint(path, mapped=True).get("imgcls", {}).get("preprocessing")
    if contract is None:
        raise UserError(
            f"{path} does not say how its images were prepared, so that MODEL.WEIGHTS_PREPROCESSING 'adopt' cannot be "
            "honoured; set it to 'check', and INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to the right values"
        )
    cfg.INPUT.FORMAT = contract["format"]
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(contract["pixel_mean"]), list(contract["pixel_std"])
    _logger.info(
        "preprocessing adopted from %s: INPUT.FORMAT %s, MODEL.PIXEL_MEAN %s, MODEL.PIXEL_STD %s",
        path, cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD,
    )  # fmt: skip


def resolve_from_data(cfg: CfgNode) -> Datasets:
    """Reads the sets of ``DATASETS`` once, checks them against the config, and fills in what depends on them.

    ``MODEL.CLSNET.NUM_CLASSES`` -1 becomes the number of classes of the training set and ``POS_WEIGHT`` "auto"
    becomes negatives / positives of each class there. Lengths in epochs are turned into iterations.

    Raises:
        UserError: labels do not fit the head or the class count, or a test set has other classes.
        UserFileNotFoundError: a set is missing.
    """
    datasets = read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    resolve_epochs(cfg.SOLVER, datasets.num_train_images)
    clsnet = cfg.MODEL.CLSNET
    if clsnet.NUM_CLASSES == -1:
        clsnet.NUM_CLASSES = len(datasets.classes)
        _logger.info("MODEL.CLSNET.NUM_CLASSES: %d, taken from the data", clsnet.NUM_CLASSES, extra=DETAIL)
    for dataset in (*datasets.train, *datasets.test):
        check_labels(dataset, clsnet.NUM_CLASSES, clsnet.HEAD == "sigmoid")
    if clsnet.POS_WEIGHT == "auto":
        clsnet.POS_WEIGHT = positive_weights(datasets.train)
    return datasets


def resolve_epochs(solver: CfgNode, num_images: int) -> None:
    """Sets ``MAX_ITER``, ``WARMUP_ITERS`` and ``STEPS`` from their counterparts in epochs, where these are given."""

    def count(epochs: int) -> int:
        return iterations(epochs, num_images, solver.IMS_PER_BATCH)

    if solver.EPOCHS:
        solver.MAX_ITER = count(solver.EPOCHS)
        _logger.info(
            "SOLVER.MAX_ITER: %d, which is %d epochs of %d images",
            solver.MAX_ITER,
            solver.EPOCHS,
            num_images,
            extra=DETAIL,
        )
    if solver.WARMUP_EPOCHS >= 0:
        solver.WARMUP_ITERS = count(solver.WARMUP_EPOCHS)
    if solver.STEP_EPOCHS:
        solver.STEPS = tuple(map(count, solver.STEP_EPOCHS))


def positive_weights(datasets: Sequence[Dataset]) -> list[float]:
    """Negatives / positives of each class over multi-label sets; 1.0 for a class without a positive, with a warning."""
    positives = sum((label_counts(dataset.records) for dataset in datasets), Counter())
    total = sum(len(dataset.records) for dataset in datasets)
    classes = datasets[0].classes
    missing = [name for label, name in enumerate(classes) if not positives[label]]
    if missing:
        _logger.warning("no training image has the classes %s; their POS_WEIGHT is 1.0", missing)
    # At least half a negative, because a class that every image has would otherwise get the weight 0.
    weights = [
        round(max(total - positives[label], 0.5) / positives[label], 4) if positives[label] else 1.0
        for label in range(len(classes))
    ]
    _logger.info("MODEL.CLSNET.POS_WEIGHT from the training set: %s", dict(zip(classes, weights, strict=True)))
    return weights
