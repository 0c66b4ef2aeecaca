"""detectron2's DefaultTrainer, for classification."""

import os
import re
import weakref
from collections import OrderedDict
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.utils import comm
from torch import distributed, nn

from imgcls.checkpoint import ClsCheckpointer, DetectorCheckpointer, build_expected, build_info
from imgcls.data import ClsLoader, build_test_loader, build_train_loader
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator


class Trainer(DefaultTrainer):
    """Trains a ``ClsNet`` with our loaders, evaluators and checkpoints, and any other model as detectron2 does."""

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks, on our checkpointer: they keep the one that they are made with."""
        self.checkpointer = self.build_checkpointer(self.cfg, self._trainer.model, trainer=weakref.proxy(self))
        return super().build_hooks()

    @classmethod
    def build_checkpointer(cls, cfg: CfgNode, model: nn.Module, **checkpointables: Any) -> DetectionCheckpointer:
        """One that checks what it loads, and for a classifier writes what it takes to use it again."""
        if is_classifier(cfg):
            return ClsCheckpointer(model, cfg.OUTPUT_DIR, info=build_info(cfg), **checkpointables)
        return DetectorCheckpointer(model, cfg.OUTPUT_DIR, expected=build_expected(cfg), **checkpointables)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_train_loader(cfg) if is_classifier(cfg) else super().build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        if is_classifier(cfg):
            return build_test_loader(cfg, dataset_name)
        return super().build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
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

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> OrderedDict:
        """Evaluates on every set of ``DATASETS.TEST``, with the same weights and statistics on all ranks."""
        broadcast_buffers(model)
        return super().test(cfg, model, evaluators)

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, and goes on with the data behind it."""
        super().resume_or_load(resume)
        # A subclass may train on a loader of its own.
        if isinstance(self._trainer.data_loader, ClsLoader):
            self._trainer.data_loader.start_at(self.start_iter)


def is_classifier(cfg: CfgNode) -> bool:
    """Whether the config's model is ours; otherwise detectron2's own parts are used."""
    return cfg.MODEL.META_ARCHITECTURE == "ClsNet"


def broadcast_buffers(model: nn.Module) -> None:
    """Gives all ranks the buffers of rank 0: BN statistics drift apart, as DefaultTrainer never synchronises them."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
