"""Record to training-ready sample."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from .decode import read_image
from .transforms import build_transforms


class ClsDatasetMapper:
    """Reads a record's picture and turns its label into a target.

    Args:
        transforms: uint8 ``(3, H, W)`` to uint8 ``(3, S, S)``.
        image_format: ``"BGR"`` or ``"RGB"``.
        num_classes: K, the length of a multi-hot target.
    """

    @configurable
    def __init__(self, *, transforms: Callable[[Tensor], Tensor], image_format: str, num_classes: int):
        self.transforms = transforms
        self.image_format = image_format
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        return {
            "transforms": build_transforms(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": cfg.MODEL.CLSNET.NUM_CLASSES,
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the record with ``"image"`` and, where it has a label, ``"label"``.

        ``"image"`` is uint8 ``(3, S, S)``, 0-255; ``"label"`` an int, or float32 ``(K,)`` of 0 and 1 where the
        record has ``"labels"``.

        Raises:
            BadImageError: the file cannot be read as a picture.
        """
        sample = dict(record)
        pixels = torch.from_numpy(read_image(sample["file_name"], self.image_format))
        # A view: the pixels stay in HWC order, which torch's uint8 resizing is fastest on.
        sample["image"] = self.transforms(pixels.permute(2, 0, 1)).contiguous()
        if "labels" in sample:
            sample["label"] = torch.zeros(self.num_classes)
            sample["label"][sample["labels"]] = 1.0
        return sample
