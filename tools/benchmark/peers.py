"""Widely used input pipelines, each set up for training at 224 pixels as its own documentation shows."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetFromList, DatasetMapper, MapDataset
from detectron2.data import transforms as detectron2_transforms
from torch.utils.data import Dataset, default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

from imgcls.data.catalog import get_dataset
from imgcls.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224


@dataclass(frozen=True)
class Pipeline:
    """A dataset and the function that makes batches of its samples.

    Attributes:
        name: shown in the table.
        dataset: map-style.
        collate: samples to a batch.
        keys: turns the ``(position, index)`` of a sampler into a key of the dataset.
    """

    name: str
    dataset: Dataset
    collate: Callable[[list[Any]], Any]
    keys: Callable[[tuple[int, int]], Any] = lambda key: key[1]


def torchvision_reference(folder: Path) -> Pipeline:
    """Returns the pipeline of PyTorch's ImageNet example: Pillow, normalised float32 ``(N, 3, 224, 224)``, labels."""
    steps = [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    return Pipeline("torchvision reference", ImageFolder(folder, transforms.Compose(steps)), default_collate)


def torchvision_v2(folder: Path) -> Pipeline:
    """Returns the tensor backend of torchvision's reference scripts, with its JPEG decoder; the same output."""
    steps = [
        v2.RandomResizedCrop(SIZE, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    dataset = ImageFolder(
        folder, v2.Compose(steps), loader=lambda path: decode_jpeg(read_file(path), mode=ImageReadMode.RGB)
    )
    return Pipeline("torchvision v2, decode_jpeg", dataset, default_collate)


def detectron2_mapper(folder: Path) -> Pipeline:
    """Returns detectron2's own mapper on the same records: whole images resized and flipped, a list of uint8 images."""
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[detectron2_transforms.Resize((SIZE, SIZE)), detectron2_transforms.RandomFlip()],
        image_format="BGR",
    )
    records = DatasetFromList(get_dataset(f"folder:{folder}").records)
    return Pipeline("detectron2 DatasetMapper", MapDataset(records, mapper), list)


def timm_loader(folder: Path) -> Pipeline:
    """Returns what the workers of timm's ``create_loader`` run: Pillow, stacked uint8, normalised later.

    Colour jitter, on by default in timm, is off because no other candidate does it.

    Raises:
        UserError: timm is not installed.
    """
    require_timm()
    from timm.data import ImageDataset, create_transform
    from timm.data.loader import fast_collate

    transform = create_transform(SIZE, is_training=True, color_jitter=None, use_prefetcher=True)
    return Pipeline("timm create_loader", ImageDataset(str(folder), transform=transform), fast_collate)


def require_timm() -> None:
    """Checks that timm is installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("timm") is None:
        raise UserError('timm, one of the candidates, is not installed: pip install -e ".[timm]"')


PEERS = (torchvision_reference, torchvision_v2, detectron2_mapper, timm_loader)
