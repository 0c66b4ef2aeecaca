"""What only the data knows: class count, weights of the positives, length of an epoch, and whether the labels fit."""

import logging
from collections import Counter

from detectron2.config import CfgNode

from imgcls.data.datasets import Dataset, check_labels, get_datasets, label_counts
from imgcls.solver import iterations

_logger = logging.getLogger(__name__)


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
        _logger.info(
            "SOLVER.MAX_ITER: %d, which is %d epochs of %d pictures", solver.MAX_ITER, solver.EPOCHS, num_images
        )
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
        _logger.warning("no training picture has the classes %s; their POS_WEIGHT is 1.0", missing)
    # A class that every picture has would get 0, which is no weight: half a negative keeps it above.
    weights = [
        round(max(total - positives[label], 0.5) / positives[label], 4) if positives[label] else 1.0
        for label in range(len(classes))
    ]
    _logger.info("MODEL.CLSNET.POS_WEIGHT from the training set: %s", dict(zip(classes, weights, strict=True)))
    return weights
