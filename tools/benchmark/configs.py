"""Builds this package's loaders and trainers for the benchmarks, from its configs, as a user's training run does."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from imgcls.config import check_cfg, load_cfg
from imgcls.data import ClsLoader, build_train_loader, read_datasets
from imgcls.engine import PlainTrainer, Trainer, resolve_from_data

_BASE = Path(__file__).resolve().parents[2] / "configs" / "Base_image_cls.yaml"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def classifier_cfg(width: float, **changes: Any) -> CfgNode:
    """Returns the ImageNet recipe with a MobileNetV1 of the given width.

    Args:
        width: ``MODEL.MNET.WIDTH_MULT``.
        changes: values by config key, with ``__`` in place of the dots: ``MODEL__CHANNELS_LAST=False``.
    """
    opts: list[Any] = ["MODEL.MNET.WIDTH_MULT", width, "MODEL.DEVICE", DEVICE, "SEED", 0]
    for key, value in changes.items():
        opts += [key.replace("__", "."), value]
    cfg = load_cfg(str(_BASE), opts)
    check_cfg(cfg)
    return cfg


def train_loader(dataset: str, batch: int, workers: int) -> ClsLoader:
    """Returns the training loader of the ImageNet recipe for a dataset name, with ``batch`` images per batch."""
    cfg = classifier_cfg(0.25, DATASETS__TRAIN=(dataset,), SOLVER__IMS_PER_BATCH=batch, DATALOADER__NUM_WORKERS=workers)
    return build_train_loader(cfg, read_datasets(cfg.DATASETS.TRAIN, ()).train)


def resolved_loader(cfg: CfgNode) -> ClsLoader:
    """Takes the class count from the training set, as both trainers do in set-up, and returns the training loader."""
    return build_train_loader(cfg, resolve_from_data(cfg).train)


def builtin_trainer(cfg: CfgNode) -> Trainer:
    """Returns the trainer of ``train_net_builtin.py``, ready to train on ``trainer.data_loader``."""
    resolve_from_data(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer


def plain_trainer(cfg: CfgNode) -> PlainTrainer:
    """Returns the trainer of ``train_net.py``, ready to train on ``trainer.loader``."""
    resolve_from_data(cfg)
    trainer = PlainTrainer(cfg)
    trainer.load()
    return trainer
