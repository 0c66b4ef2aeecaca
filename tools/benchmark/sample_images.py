"""The images of a benchmark: the user's own, or crops of photographs that come with installed packages."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from transfer.sources import PHOTOGRAPHS

from imgcls.data.catalog import get_dataset
from imgcls.disk import write_once
from imgcls.errors import UserError

COUNT = 512
SIZE = (500, 375)
QUALITY = 95
# Crops are at least this share of a photograph's width: enlarging smaller ones would blur them.
_SMALLEST = 0.7
# Of the packed copy; larger folders are not packed, because that would take long and much disk space.
SHORT_SIDE, PACKED_QUALITY = 256, 90
_MOST_PACKED = 5000


def find_images(data: str | None) -> Path:
    """Returns a folder with one subfolder of JPEG files per class, as torchvision's ``ImageFolder`` reads it.

    Args:
        data: the user's folder; None makes ``DETECTRON2_DATASETS/imgcls/benchmark`` unless it exists.

    Raises:
        UserError: the folder does not exist, or has no images or other files than JPEG; or the photographs are not
            installed.
    """
    if data is None:
        return write_once("benchmark", lambda folder: make_images(folder, COUNT))
    for record in get_dataset(f"folder:{data}").records:
        if not record["file_name"].lower().endswith((".jpg", ".jpeg")):
            raise UserError(
                f"--data {data}: {record['file_name']} is no JPEG file (.jpg, .jpeg), and not every candidate reads "
                "other formats; name a folder of JPEG files"
            )
    return Path(data)


def describe_images(folder: Path) -> dict[str, int | float]:
    """Returns the number of images and their mean file size."""
    sizes = [Path(record["file_name"]).stat().st_size for record in get_dataset(f"folder:{folder}").records]
    return {"images": len(sizes), "KiB an image": round(sum(sizes) / len(sizes) / 1024, 1)}


def make_images(folder: Path, count: int) -> None:
    """Writes ``count`` JPEG files, 500x375, quality 95, one class per photograph; the same ones every time."""
    rng = np.random.default_rng(0)
    photographs = {path.stem: Image.open(path).convert("RGB") for path in find_photographs()}
    for number in range(count):
        name = list(photographs)[number % len(photographs)]
        crop = _random_crop(photographs[name], rng)
        (folder / name).mkdir(parents=True, exist_ok=True)
        crop.save(folder / name / f"{number:04d}.jpg", quality=QUALITY)


def find_photographs() -> list[Path]:
    """Returns the colour photographs of scikit-image and scikit-learn, which are the same on every machine.

    Raises:
        UserError: one of the two is not installed.
    """
    found = []
    for package, folder, names in PHOTOGRAPHS:
        spec = find_spec(package)
        roots = list(spec.submodule_search_locations or ()) if spec else []
        paths = [Path(roots[0], folder, name) for split in names.values() for name in split] if roots else []
        if not paths or not all(path.is_file() for path in paths):
            raise UserError(
                f"the benchmark's images are crops of scikit-image's and scikit-learn's photographs, and {package} has "
                'none: pip install -e ".[demo]", or name a folder of JPEG files with --data'
            )
        found += [path for path in paths if Image.open(path).mode == "RGB"]
    return found


@contextmanager
def packed_images(folder: Path) -> Iterator[str | None]:
    """Packs the images as ``tools/pack_dataset.py`` does and yields the name of the copy for ``DATASETS.TRAIN``.

    Yields None for more than 5000 images. The copy is removed afterwards.

    Raises:
        UserError: webdataset is not installed, or an image cannot be read.
    """
    if len(get_dataset(f"folder:{folder}").records) > _MOST_PACKED:
        yield None
        return
    if find_spec("webdataset") is None:
        raise UserError('webdataset, which packs the images, is not installed: pip install -e ".[shards]"')
    from imgcls.data.shards.pack import pack_dataset

    with tempfile.TemporaryDirectory() as out:
        index = pack_dataset(f"folder:{folder}", out, SHORT_SIDE, PACKED_QUALITY)
        first, last = (index["shards"][i]["name"].removesuffix(".tar") for i in (0, -1))
        yield f"shards:{os.path.join(out, f'{{{first}..{last}}}.tar')}"


def _random_crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    widest = min(photograph.width, photograph.height * SIZE[0] / SIZE[1])
    width = widest * rng.uniform(_SMALLEST, 1)
    height = width * SIZE[1] / SIZE[0]
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    return photograph.resize(SIZE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
