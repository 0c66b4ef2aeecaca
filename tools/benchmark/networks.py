"""The networks that are compared: ours as the config builds it, and timm's."""

from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from benchmark.configs import DEVICE, classifier_cfg, train_loader
from benchmark.peers import MEAN, STD, require_timm
from imgcls.modeling import ClsNet

OURS, TIMM = "imgcls", "timm mobilenetv1_100"
CLASSES = 1000


def read_batch(folder: Path, size: int) -> dict[str, Tensor]:
    """Returns ``size`` training images (uint8) with random labels out of 1000, on the device."""
    images = next(iter(train_loader(f"folder:{folder}", size, workers=0)))["image"]
    return {"image": images.to(DEVICE), "label": torch.randint(CLASSES, (size,), device=DEVICE)}


def our_network(width: float, **changes: Any) -> ClsNet:
    """Returns a ``ClsNet`` with 1000 classes; ``changes`` as for ``classifier_cfg``."""
    return build_model(classifier_cfg(width, **changes))


def timm_network() -> nn.Module:
    """Returns timm's MobileNetV1 in channels-last format, as ``--channels-last`` of timm's scripts makes it.

    Raises:
        UserError: timm is not installed.
    """
    require_timm()
    import timm

    model = timm.create_model("mobilenetv1_100", num_classes=CLASSES)
    return model.to(DEVICE).to(memory_format=torch.channels_last)


def normalised(images: Tensor) -> Tensor:
    """Returns what timm's loader passes to its networks: float32, normalised; here also in channels-last format."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
