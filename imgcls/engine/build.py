"""The parts of both trainers that the config chooses: checkpointer, evaluator and PreciseBN."""

import os
import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn

from imgcls.checkpoint import (
    ClsCheckpointer,
    DetectorCheckpointer,
    RunCheckpointer,
    build_detector_info,
    build_expected,
    build_info,
)
from imgcls.data import ClsLoader
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator


def is_classifier(cfg: CfgNode) -> bool:
    """Whether the config's model is a ``ClsNet``; otherwise detectron2's own loaders and evaluators are used."""
    return cfg.MODEL.META_ARCHITECTURE == "ClsNet"


def build_checkpointer(
    cfg: CfgNode, model: nn.Module, classes: Sequence[str] = (), allow_pickle: bool = False, **checkpointables: Any
) -> RunCheckpointer:
    """Builds the checkpointer of a classifier, with the classes of its training set, or of a detector."""
    common = {"keep": cfg.SOLVER.KEEP_CHECKPOINTS, "allow_pickle": allow_pickle, **checkpointables}
    if is_classifier(cfg):
        return ClsCheckpointer(model, cfg.OUTPUT_DIR, info=build_info(cfg, classes), **common)
    info, expected = build_detector_info(cfg), build_expected(cfg)
    return DetectorCheckpointer(model, cfg.OUTPUT_DIR, info=info, expected=expected, **common)


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None, classes: Sequence[str] = ()
) -> DatasetEvaluator:
    """Builds the evaluator that fits a classifier's head, or COCO's for a detector.

    Result files go to ``output_folder``, by default ``OUTPUT_DIR/inference``. A classifier needs its ``classes``.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    if not is_classifier(cfg):
        # pycocotools, because detectron2's faster implementation needs its compiled extension.
        return COCOEvaluator(dataset_name, output_dir=folder, use_fast_impl=False)
    if len(cfg.DATASETS.TEST) > 1:
        folder = os.path.join(folder, re.sub(r"[^\w.-]+", "_", dataset_name))
    if cfg.MODEL.CLSNET.HEAD == "sigmoid":
        return MultiLabelEvaluator(
            classes, cfg.TEST.THRESHOLD, output_dir=folder, save_probabilities=cfg.TEST.SAVE_PROBABILITIES
        )
    return ImageNetEvaluator(classes, cfg.TEST.TOPK, output_dir=folder, save_probabilities=cfg.TEST.SAVE_PROBABILITIES)


class PreciseBN:
    """Replaces the running statistics of batch norm by means over ``num_iter`` batches of a loader of its own.

    The model must be in training mode.
    """

    def __init__(self, model: nn.Module, loader: Any, num_iter: int):
        self.model = model
        self.loader = loader
        self.num_iter = num_iter

    def update(self, iteration: int) -> None:
        """Takes the batches that follow an iteration: a resumed run takes the same ones as an uninterrupted one."""
        if isinstance(self.loader, ClsLoader):
            self.loader.start_at(iteration + 1)
        with EventStorage():  # what the model logs here must not get into the run's storage
            update_bn_stats(self.model, iter(self.loader), self.num_iter)


def build_precise_bn(cfg: CfgNode, model: nn.Module, loader: Any) -> PreciseBN | None:
    """``PreciseBN`` where ``TEST.PRECISE_BN`` asks for it and the model has batch norm to train, else None."""
    if not cfg.TEST.PRECISE_BN.ENABLED or not get_bn_modules(model):
        return None
    return PreciseBN(model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)
