"""From dataset records to samples for the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from imgcls.data.image import BadImageError, EncodedImage, OpenShards, read_bytes
from imgcls.data.sampler import derive_seed
from imgcls.data.transforms import build_augmentations, build_crop


class ClsDatasetMapper:
    """Reads and augments a record's image, and turns the labels of a multi-label record into a multi-hot target.

    Args:
        crop: maps an ``EncodedImage`` to uint8 ``(3, S, S)``.
        augment: maps uint8 ``(3, S, S)`` to the same.
        image_format: ``"BGR"`` or ``"RGB"``.
        num_classes: K, the length of a multi-hot target.
    """

    @configurable
    def __init__(
        self,
        *,
        crop: Callable[[EncodedImage], Tensor],
        augment: Callable[[Tensor], Tensor],
        image_format: str,
        num_classes: int,
    ):
        self.crop = crop
        self.augment = augment
        self.image_format = image_format
        self.num_classes = num_classes
        self._shards = OpenShards()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The arguments for ``__init__``; with ``is_train``, random crops and augmentations."""
        return {
            "crop": build_crop(cfg, is_train),
            "augment": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": cfg.MODEL.CLSNET.NUM_CLASSES,
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the record with ``"image"`` and, if it has labels, ``"label"``.

        ``"image"`` is uint8 ``(3, S, S)``, 0-255, channels-last in memory. ``"label"`` is an int, or float32 ``(K,)``
        of 0 and 1 if the record has ``"labels"``.

        Raises:
            BadImageError: the file cannot be read as an image.
        """
        sample = dict(record)
        image = EncodedImage(read_bytes(record, self._shards), record["file_name"], self.image_format)
        sample["image"] = self.augment(self.crop(image))
        if "labels" in sample:
            sample["label"] = torch.zeros(self.num_classes)
            sample["label"][sample["labels"]] = 1.0
        return sample


class MappedDataset(TorchDataset):
    """Applies a mapper to records.

    The mapper's random numbers (torch's global generator) depend on ``(seed, position)`` only, never on the worker
    that loads the sample, and the caller's generator is not changed.

    Args:
        records: dataset records.
        mapper: maps a record to a sample; raises ``BadImageError`` if its image cannot be read.
        seed: of the augmentations.
        on_bad: what happens then. ``"error"`` raises, ``"next"`` uses the next readable record instead (training),
            ``"drop"`` returns a sample without ``"image"`` (evaluation, which counts each image once).
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        mapper: Callable[[Mapping[str, Any]], dict[str, Any]],
        seed: int = 0,
        on_bad: str = "error",
    ):
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.on_bad = on_bad

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The sample for ``(position, index)``, or for an index, which is then also the position.

        Its ``"bad_images"`` lists the error messages of skipped images.
        """
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Any]]:
        """The samples of a batch; torch's loaders call this, so that the generator is saved and restored once."""
        with torch.random.fork_rng(devices=[]):
            return [self._sample(*(key if isinstance(key, tuple) else (key, key))) for key in keys]

    def _sample(self, position: int, index: int) -> dict[str, Any]:
        torch.default_generator.manual_seed(derive_seed(self.seed, position))
        bad: list[str] = []
        while True:
            try:
                return {**self.mapper(self.records[index]), "bad_images": bad}
            except BadImageError as error:
                bad.append(str(error))
                if self.on_bad == "drop":
                    return {"bad_images": bad}
                if self.on_bad == "error" or len(bad) == len(self.records):
                    raise
            index = (index + 1) % len(self.records)
