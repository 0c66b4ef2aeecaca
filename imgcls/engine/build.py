"""What both trainers are put together from, by the config."""

import os
import re
from collections import OrderedDict
from inspect import signature
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, verify_results
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from imgcls.checkpoint import ClsCheckpointer, DetectorCheckpointer, build_expected, build_info
from imgcls.engine.run_state import BestTracker, RunLog
from imgcls.engine.step import TrainStep
from imgcls.errors import UserError
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.solver import build_ema


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


# Buffers at every forward pass; torch 2.13 renamed the option.
_NAMES = signature(DistributedDataParallel).parameters
_SYNCHRONISED = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


def wrap_ddp(model: nn.Module) -> nn.Module:
    """The model, wrapped so that the gradients of all processes are averaged; itself where there is one process.

    Raises:
        ValueError: a norm that works on GPUs only.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise UserError("MODEL.MNET.NORM 'SyncBN' works on GPUs only; on CPU processes set it to 'naiveSyncBN'")
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, **{_SYNCHRONISED: False})


def broadcast_buffers(model: nn.Module) -> None:
    """Gives all ranks the buffers of rank 0: BN statistics drift apart, as training never synchronises them."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def evaluate_with_ema(
    trainer: type[DefaultTrainer], cfg: CfgNode, model: nn.Module, ema: AveragedModel | None
) -> OrderedDict:
    """Evaluates a model and, where there is one, the average of its weights, whose results are under ``"ema"``.

    Args:
        trainer: whose ``test`` and ``build_evaluator`` are used.

    Returns:
        What the evaluators give, on the first process; empty on the others.
    """
    results = trainer.test(cfg, model)
    if ema is not None:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", "ema")
        evaluators = [trainer.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        averaged = trainer.test(cfg, ema.module, evaluators)
        if averaged:
            results["ema"] = averaged
    return results


def evaluate(trainer: type[DefaultTrainer], cfg: CfgNode, resume: bool = False) -> OrderedDict:
    """Evaluates ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on every set of ``DATASETS.TEST``.

    Returns:
        As ``evaluate_with_ema``.

    Raises:
        ValueError: no weights are named, or ``SOLVER.EMA_DECAY`` asks for averaged ones that are not in the file.
    """
    if not (cfg.MODEL.WEIGHTS or resume):
        raise UserError(
            "--eval-only without weights would score random numbers: "
            "set MODEL.WEIGHTS to a checkpoint, or add --resume for the last one in OUTPUT_DIR"
        )
    model = trainer.build_model(cfg)
    ema = build_ema(cfg, model)
    checkpointer = trainer.build_checkpointer(cfg, model)
    rest = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if ema is not None:
        if "ema" not in rest:
            raise UserError(
                f"{checkpointer.source} has no averaged weights; set SOLVER.EMA_DECAY 0.0 to evaluate it without"
            )
        ema.load_state_dict(rest["ema"])
    results = evaluate_with_ema(trainer, cfg, model, ema)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
