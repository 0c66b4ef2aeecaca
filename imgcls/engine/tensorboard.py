"""TensorBoard for both trainers: scalars, training images, precision-recall curves, and hparams with the results."""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import TensorboardXWriter, get_event_storage

from imgcls.data import ClsLoader
from imgcls.data.dataset import Dataset, labels_of
from imgcls.engine.run_state import WINDOW
from imgcls.engine.scalars import LabelledScores, RunStorage

IMAGES = 16
# Up to this number of classes, each has a curve of its own.
MAX_CURVES = 20
_HPARAMS = (
    "MODEL.BACKBONE.NAME",
    "MODEL.MNET.WIDTH_MULT",
    "MODEL.CLSNET.INPUT_SIZE",
    "MODEL.CLSNET.DROPOUT",
    "MODEL.CLSNET.LABEL_SMOOTHING",
    "MODEL.WEIGHTS",
    "INPUT.AUGMENTATION",
    "INPUT.RANDOM_ERASING",
    "SOLVER.BASE_LR",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.MAX_ITER",
    "SOLVER.EPOCHS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.MOMENTUM",
    "SOLVER.EMA_DECAY",
    "SOLVER.BACKBONE_MULTIPLIER",
    "SOLVER.HEAD_ONLY_EPOCHS",
    "SEED",
)
_logger = logging.getLogger(__name__)


class TensorBoardWriter(TensorboardXWriter):
    """detectron2's writer of scalars, with what TensorBoard can show of a classifier.

    Args:
        cfg: of the run; the event files are in ``OUTPUT_DIR``.
    """

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg.OUTPUT_DIR, WINDOW)
        self.cfg = cfg

    def add_training_images(self, loader: ClsLoader, classes: Sequence[str], iteration: int) -> None:
        """Writes the first images that the loader is about to yield, as the network will see them.

        The training's random numbers do not change. Images that cannot be loaded are left to the training to report.

        Args:
            loader: at its first batch.
            classes: of the training set.
            iteration: of that batch.
        """
        try:
            samples = loader.preview(IMAGES)
        except Exception as error:
            _logger.warning("no training images in TensorBoard: %s", " ".join(str(error).split()))
            return
        for number, sample in enumerate(samples):
            image = sample["image"] if self.cfg.INPUT.FORMAT == "RGB" else sample["image"].flip(0)
            names = ", ".join(classes[label] for label in labels_of(sample)) or "none"
            self._writer.add_image(f"training images/{number:02d} {names}", image, iteration)

    def write(self) -> None:
        """Writes the scalars, and the curves of an evaluation since the last call."""
        super().write()
        storage = get_event_storage()
        if isinstance(storage, RunStorage):
            for name, scores in storage.take_scores().items():
                self._add_curves(name, scores)

    def close(self) -> None:
        """Writes hparams and the last results, unless the training has failed, and closes the file."""
        storage = get_event_storage()
        results = storage.results if isinstance(storage, RunStorage) else {}
        if results and sys.exc_info()[0] is None:  # the loop closes its writers while an exception propagates
            self._add_hparams(results)
        super().close()

    def _add_curves(self, name: str, scores: LabelledScores) -> None:
        def add(tag: str, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
            tag = "/".join(filter(None, ("precision and recall", name, tag)))
            self._writer.add_pr_curve(tag, labels.flatten(), probabilities.flatten(), scores.iteration)

        add("all classes together", scores.labels, scores.probabilities)
        if len(scores.classes) <= MAX_CURVES:
            for index, class_name in enumerate(scores.classes):
                add(class_name, scores.labels[:, index], scores.probabilities[:, index])

    def _add_hparams(self, results: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        values = {key: reduce(getitem, key.split("."), self.cfg) for key in _HPARAMS}
        # The values of the metrics are the scalars of the same names. SummaryWriter.add_hparams would write them again,
        # into a run of its own.
        for summary in hparams(values, dict(results)):
            self._writer._get_file_writer().add_summary(summary)


def build_tensorboard(
    cfg: CfgNode, loader: Any, training_sets: Sequence[Dataset], iteration: int, resumed: bool
) -> TensorBoardWriter:
    """The writer of a run, which already has its training images unless the run was resumed in its own folder.

    Args:
        cfg: of the run.
        loader: of the training; images are shown only of ours.
        training_sets: with the classes.
        iteration: the first one.
        resumed: whether the images were written before.
    """
    writer = TensorBoardWriter(cfg)
    if isinstance(loader, ClsLoader) and not resumed:
        writer.add_training_images(loader, training_sets[0].classes, iteration)
    return writer
