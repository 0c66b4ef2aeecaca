"""The difference between our crops and Pillow's antialiased bilinear resize of the same region of the same image."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmark.configs import classifier_cfg
from imgcls.data import ClsDatasetMapper
from imgcls.data.catalog import get_dataset

COUNT = 64
# Positions that three channels of 255 levels, filled one after the other, can encode.
_POSITIONS = 765


def compare_pixels(folder: Path, count: int = COUNT) -> dict[str, float]:
    """Returns the mean absolute difference in levels of 255, over ``count`` images and of the worst one."""
    records = get_dataset(f"folder:{folder}").records
    chosen = [records[i]["file_name"] for i in np.linspace(0, len(records) - 1, count).astype(int)]
    mapper = ClsDatasetMapper(classifier_cfg(0.25), is_train=True)
    differences = [_difference(mapper, path, seed) for seed, path in enumerate(chosen)]
    return {
        "mean difference to Pillow (levels of 255)": round(float(np.mean(differences)), 3),
        "the same, worst image": round(max(differences), 3),
    }


def find_crop(mapper: ClsDatasetMapper, size: tuple[int, int], seed: int) -> tuple[tuple[int, int, int, int], bool]:
    """Returns the region ``(left, top, right, bottom)`` that a mapper crops, and whether it flips it.

    It works for any mapper that draws its random numbers from torch: the mapper is run on two images whose pixel
    values encode their own positions, and the output shows which positions it took.

    Args:
        mapper: crops training images.
        size: width and height of the image.
        seed: of torch's random numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        edges = [_edges(mapper, size, axis, seed, Path(folder)) for axis in (0, 1)]
    (left, right), (top, bottom) = edges
    return (min(left, right), top, max(left, right), bottom), left > right


def _difference(mapper: ClsDatasetMapper, path: str, seed: int) -> float:
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    ours = _run(mapper, path, seed)
    box, flipped = find_crop(mapper, image.size, seed)
    theirs = image.crop(box).resize(ours.shape[1::-1], Image.Resampling.BILINEAR)
    if flipped:
        theirs = ImageOps.mirror(theirs)
    return float(np.abs(ours.astype(float) - np.asarray(theirs)).mean())


def _edges(mapper: ClsDatasetMapper, size: tuple[int, int], axis: int, seed: int, folder: Path) -> tuple[int, int]:
    """Returns both edges of the crop along an axis (0: x, 1: y), by fitting a line to the positions in the output."""
    scale = min(1.0, _POSITIONS / max(size))
    positions = np.arange(size[axis]) * scale
    channels = np.stack([np.clip(positions - 255 * i, 0, 255) for i in range(3)], axis=-1)
    ramp = np.empty((size[1], size[0], 3), np.uint8)
    ramp[:] = np.rint(channels)[None, :] if axis == 0 else np.rint(channels)[:, None]
    path = folder / f"{axis}.png"
    Image.fromarray(ramp).save(path)
    seen = _run(mapper, str(path), seed).astype(float).sum(axis=2).mean(axis=axis) / scale
    # Resizing averages the outermost pixels over fewer neighbours.
    inner = np.arange(len(seen) // 16, len(seen) - len(seen) // 16)
    slope, start = np.polyfit(inner + 0.5, seen[inner] + 0.5, 1)
    return round(start), round(start + slope * len(seen))


def _run(mapper: ClsDatasetMapper, path: str, seed: int) -> NDArray[np.uint8]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = mapper({"file_name": path, "image_id": 0, "label": 0})["image"]
    pixels = image.permute(1, 2, 0).numpy()
    return pixels[:, :, ::-1] if mapper.image_format == "BGR" else pixels
