"""The images of a benchmark: the user's own, or crops of photographs that are installed anyway."""

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
# Smallest share of a photograph's width that a crop has: smaller ones would be blurred when they are enlarged.
_SMALLEST = 0.7


def find_images(data: str | None) -> Path:
    """A folder of classes with JPEG files, as ``folder:PATH`` and torchvision's ``ImageFolder`` read it.

    Args:
        data: the user's folder; None makes ``DETECTRON2_DATASETS/imgcls/benchmark`` if it is not there yet.

    Raises:
        UserError: no such folder, no images or other than JPEG in it; or the photographs are not installed.
    """
    if data is None:
        return write_once("benchmark", lambda folder: make_images(folder, COUNT))
    for record in get_dataset(f"folder:{data}").records:
        if not record["file_name"].lower().endswith((".jpg", ".jpeg")):
            raise UserError(
                f"--data {data}: has {record['file_name']}; the candidates are compared on JPEG files (.jpg, .jpeg), "
                "name a folder of those"
            )
    return Path(data)


def describe_images(folder: Path) -> dict[str, int | float]:
    """How many they are, and the size of their files."""
    sizes = [Path(record["file_name"]).stat().st_size for record in get_dataset(f"folder:{folder}").records]
    return {"images": len(sizes), "KiB an image": round(sum(sizes) / len(sizes) / 1024, 1)}


def make_images(folder: Path, count: int) -> None:
    """Writes ``count`` JPEG files, 500x375, quality 95, one class a photograph; always the same ones."""
    rng = np.random.default_rng(0)
    photographs = {path.stem: Image.open(path).convert("RGB") for path in find_photographs()}
    for number in range(count):
        name = list(photographs)[number % len(photographs)]
        crop = _random_crop(photographs[name], rng)
        (folder / name).mkdir(parents=True, exist_ok=True)
        crop.save(folder / name / f"{number:04d}.jpg", quality=QUALITY)


def find_photographs() -> list[Path]:
    """The colour photographs of scikit-image and scikit-learn, the same on every machine.

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
                f"the benchmark's images are crops of scikit-image's and scikit-learn's photographs; {package} has "
                'none here: pip install -e ".[demo]", or name a folder of JPEG files with --data'
            )
        found += [path for path in paths if Image.open(path).mode == "RGB"]
    return found


def _random_crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    widest = min(photograph.width, photograph.height * SIZE[0] / SIZE[1])
    width = widest * rng.uniform(_SMALLEST, 1)
    height = width * SIZE[1] / SIZE[0]
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    return photograph.resize(SIZE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
