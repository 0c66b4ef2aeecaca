"""Record to training-ready sample."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from .decode import Picture
from .picture_bytes import read_bytes
from .transforms import build_augmentations, build_crop


class ClsDatasetMapper:
    """Reads a record's picture and turns its label into a target.

    Args:
        crop: a ``Picture`` to uint8 ``(3, S, S)``.
        augment: uint8 ``(3, S, S)`` to the same.
        image_format: ``"BGR"`` or ``"RGB"``.
        num_classes: K, the length of a multi-hot target.
    """

    @configurable
    def __init__(
        self,
        *,
        crop: Callable[[Picture], Tensor],
        augment: Callable[[Tensor], Tensor],
        image_format: str,
        num_classes: int,
    ):
        self.crop = crop
        self.augment = augment
        self.image_format = image_format
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        return {
            "crop": build_crop(cfg, is_train),
            "augment": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": cfg.MODEL.CLSNET.NUM_CLASSES,
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the record with ``"image"`` and, where it has a label, ``"label"``.

        ``"image"`` is uint8 ``(3, S, S)``, 0-255, with the colours of a pixel side by side in memory; ``"label"`` an
        int, or float32 ``(K,)`` of 0 and 1 where the record has ``"labels"``.

        Raises:
            BadImageError: the file cannot be read as a picture.
        """
        sample = dict(record)
        picture = Picture(read_bytes(record), record["file_name"], self.image_format)
        sample["image"] = self.augment(self.crop(picture))
        if "labels" in sample:
            sample["label"] = torch.zeros(self.num_classes)
            sample["label"][sample["labels"]] = 1.0
        return sample
