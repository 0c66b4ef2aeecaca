"""The package's own candidates are built from its configs, as a user's training is."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from imgcls.config import check_cfg, load_cfg

_BASE = Path(__file__).resolve().parents[2] / "configs" / "Base_image_cls.yaml"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def classifier_cfg(width: float, **changes: Any) -> CfgNode:
    """The ImageNet recipe with a MobileNetV1 of a width.

    Args:
        width: ``MODEL.MNET.WIDTH_MULT``.
        changes: values by their keys, with ``__`` for the dots: ``MODEL__CHANNELS_LAST=False``.
    """
    opts = ["MODEL.MNET.WIDTH_MULT", width, "MODEL.DEVICE", DEVICE, "SEED", 0]
    for key, value in changes.items():
        opts += [key.replace("__", "."), value]
    cfg = load_cfg(str(_BASE), opts)
    check_cfg(cfg)
    return cfg
