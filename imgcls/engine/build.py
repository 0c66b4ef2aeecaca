"""What both trainers are put together from, by the config."""

import os
import re
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imgcls.checkpoint import ClsCheckpointer, DetectorCheckpointer, build_expected, build_info
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator

from .best import BestTracker
from .run_log import RunLog
from .step import TrainStep


def is_classifier(cfg: CfgNode) -> bool:
    """Whether the config's model is ours; otherwise detectron2's own parts are used."""
    return cfg.MODEL.META_ARCHITECTURE == "ClsNet"


def build_checkpointer(cfg: CfgNode, model: nn.Module, **checkpointables: Any) -> DetectionCheckpointer:
    """One that checks what it loads, and for a classifier writes what it takes to use it again."""
    keep = cfg.SOLVER.KEEP_CHECKPOINTS
    if is_classifier(cfg):
        return ClsCheckpointer(model, cfg.OUTPUT_DIR, info=build_info(cfg), keep=keep, **checkpointables)
    return DetectorCheckpointer(model, cfg.OUTPUT_DIR, expected=build_expected(cfg), keep=keep, **checkpointables)


def checkpointables(
    optimizer: Optimizer, scheduler: LRScheduler, step: TrainStep, best: BestTracker, log: RunLog
) -> dict[str, Any]:
    """All that a run is, beside its weights and its iteration: what a checkpoint holds under which name."""
    parts = {"optimizer": optimizer, "scheduler": scheduler, "best": best, "log": log}
    if step.ema is not None:
        parts["ema"] = step.ema
    if step.scaler.is_enabled():
        parts["grad_scaler"] = step.scaler
    return parts


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """By the head for a classifier; COCO's for a detector."""
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    if not is_classifier(cfg):
        # pycocotools itself: detectron2's faster copy needs its compiled extension.
        return COCOEvaluator(dataset_name, output_dir=folder, use_fast_impl=False)
    if len(cfg.DATASETS.TEST) > 1:
        folder = os.path.join(folder, re.sub(r"[^\w.-]+", "_", dataset_name))
    classes = MetadataCatalog.get(dataset_name).classes
    if cfg.MODEL.CLSNET.HEAD == "sigmoid":
        return MultiLabelEvaluator(classes, cfg.TEST.THRESHOLD, output_dir=folder)
    return ImageNetEvaluator(classes, cfg.TEST.TOPK, output_dir=folder)
