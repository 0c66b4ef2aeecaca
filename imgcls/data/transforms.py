"""Augmentation of the cropped training image, and both stages built from the config."""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torchvision.transforms import v2

from imgcls.data.crop import EvalCrop, TrainCrop

_FLIPS = {"horizontal": -1, "vertical": -2}  # the dimension to reverse
_AUGMENTATIONS = {"trivialaugment": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}


class RandomFlip(nn.Module):
    """Reverses a dimension with probability 0.5; draws the same number as torchvision's flips, at half their cost."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``(..., H, W)`` to the same shape."""
        return image.flip(self.dim) if torch.rand(1).item() < 0.5 else image


def augmentations(flip: str = "horizontal", augmentation: str = "none", erasing: float = 0.0) -> nn.Sequential:
    """Augmentations from uint8 ``(C, S, S)`` to the same, 0-255; they draw from torch's global generator.

    Args:
        flip: ``"horizontal"``, ``"vertical"`` (each with probability 0.5) or ``"none"``.
        augmentation: ``"trivialaugment"``, ``"randaugment"`` or ``"none"``.
        erasing: probability of erasing a random rectangle.
    """
    steps: list[nn.Module] = []
    if flip != "none":
        steps.append(RandomFlip(_FLIPS[flip]))
    if augmentation != "none":
        steps.append(_AUGMENTATIONS[augmentation]())
    if erasing > 0:
        steps.append(v2.RandomErasing(erasing))
    return nn.Sequential(*steps)


def build_crop(cfg: CfgNode, is_train: bool) -> TrainCrop | EvalCrop:
    """Builds the crop from ``INPUT`` and ``MODEL.CLSNET.INPUT_SIZE``."""
    size = cfg.MODEL.CLSNET.INPUT_SIZE
    if is_train:
        return TrainCrop(size, cfg.INPUT.CROP_SCALE, cfg.INPUT.CROP_RATIO)
    return EvalCrop(size, cfg.INPUT.CROP_PCT)


def build_augmentations(cfg: CfgNode, is_train: bool) -> nn.Sequential:
    """Builds the augmentations from ``INPUT``; evaluation has none."""
    if not is_train:
        return nn.Sequential()
    return augmentations(cfg.INPUT.RANDOM_FLIP, cfg.INPUT.AUGMENTATION, cfg.INPUT.RANDOM_ERASING)
