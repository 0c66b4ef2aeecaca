"""The networks that are compared: ours as the config builds it, and timm's."""

from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from benchmark.configs import DEVICE, classifier_cfg
from benchmark.peers import MEAN, STD, require_timm
from imgcls.data import build_train_loader
from imgcls.modeling import ClsNet

OURS, TIMM = "imgcls", "timm mobilenetv1_100"
CLASSES = 1000


def read_batch(folder: Path, size: int) -> dict[str, Tensor]:
    """A training batch of real images, uint8, and random labels out of 1000, on the device."""
    cfg = classifier_cfg(
        0.25, DATASETS__TRAIN=(f"folder:{folder}",), SOLVER__IMS_PER_BATCH=size, DATALOADER__NUM_WORKERS=0
    )
    images = next(iter(build_train_loader(cfg)))["image"]
    return {"image": images.to(DEVICE), "label": torch.randint(CLASSES, (size,), device=DEVICE)}


def our_network(width: float, **changes: Any) -> ClsNet:
    """A ``ClsNet`` with 1000 classes."""
    return build_model(classifier_cfg(width, **changes))


def timm_network() -> nn.Module:
    """Timm's MobileNetV1, channels_last (``--channels-last`` of timm's scripts).

    Raises:
        UserError: timm is not installed.
    """
    require_timm()
    import timm

    return timm.create_model("mobilenetv1_100", num_classes=CLASSES).to(DEVICE, memory_format=torch.channels_last)


def normalised(images: Tensor) -> Tensor:
    """What timm's loader hands to its networks: float32, normalised; here in channels_last too."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
