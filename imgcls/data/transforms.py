"""From a decoded picture to the square input of the network, in training and in evaluation."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn
from torchvision.transforms import v2

_FLIPS = {"horizontal": v2.RandomHorizontalFlip, "vertical": v2.RandomVerticalFlip}
_AUGMENTATIONS = {"trivialaugment": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}


def train_transforms(
    size: int,
    crop_scale: Sequence[float] = (0.08, 1.0),
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
    flip: str = "horizontal",
    augmentation: str = "none",
    erasing: float = 0.0,
) -> nn.Module:
    """Random resized crop (antialiased) and flip, then the augmentations on the small result.

    uint8 ``(C, H, W)`` to uint8 ``(C, size, size)``, 0-255. All randomness is torch's global generator.

    Args:
        size: side of the output in pixels.
        crop_scale: smallest and largest share of the picture's area.
        crop_ratio: smallest and largest width / height of the crop.
        flip: ``"horizontal"``, ``"vertical"`` (each with probability 0.5) or ``"none"``.
        augmentation: ``"trivialaugment"``, ``"randaugment"`` or ``"none"``.
        erasing: probability of erasing a random rectangle.
    """
    steps: list[nn.Module] = [v2.RandomResizedCrop(size, tuple(crop_scale), tuple(crop_ratio), antialias=True)]
    if flip != "none":
        steps.append(_FLIPS[flip](0.5))
    if augmentation != "none":
        steps.append(_AUGMENTATIONS[augmentation]())
    if erasing > 0:
        steps.append(v2.RandomErasing(erasing))
    return v2.Compose(steps)


def eval_transforms(size: int, crop_pct: float = 0.875) -> nn.Module:
    """Resizes the short side to ``size / crop_pct`` (antialiased) and takes the centre.

    uint8 ``(C, H, W)`` to uint8 ``(C, size, size)``, 0-255.
    """
    return v2.Compose([v2.Resize(round(size / crop_pct), antialias=True), v2.CenterCrop(size)])


def build_transforms(cfg: CfgNode, is_train: bool) -> nn.Module:
    """The transforms that ``INPUT`` and ``MODEL.CLSNET.INPUT_SIZE`` describe."""
    size = cfg.MODEL.CLSNET.INPUT_SIZE
    if not is_train:
        return eval_transforms(size, cfg.INPUT.CROP_PCT)
    return train_transforms(
        size,
        cfg.INPUT.CROP_SCALE,
        cfg.INPUT.CROP_RATIO,
        cfg.INPUT.RANDOM_FLIP,
        cfg.INPUT.AUGMENTATION,
        cfg.INPUT.RANDOM_ERASING,
    )
