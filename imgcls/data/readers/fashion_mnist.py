"""Fashion-MNIST: the published IDX files, converted to PNG files once."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.json_file import read_json
from imgcls.disk import datasets_root, write_once, write_text
from imgcls.errors import UserError, UserFileNotFoundError

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SIZE = 28
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def read_fashion_mnist(split: str) -> RawDataset:
    """Reads 60,000 training or 10,000 test images, grey, 28x28, with the original labels.

    Raises:
        UserError: the IDX files are missing or damaged, or the folder of the PNG files cannot be written.
    """
    return read_json(str(write_once("fashion_mnist", _write) / f"{split}.json"))


def _write(folder: Path) -> None:
    source = _find()
    sets = {split: _load(source / images, source / labels) for split, (images, labels) in FILES.items()}
    with tqdm(total=sum(len(images) for images, _ in sets.values()), desc="writing Fashion-MNIST as PNG files") as bar:
        for split, (images, labels) in sets.items():
            for label in range(len(CLASSES)):
                (folder / split / str(label)).mkdir(parents=True)
            records = []
            for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                file_name = f"{split}/{label}/{number:05d}.png"
                Image.fromarray(image).save(folder / file_name)
                records.append({"file_name": file_name, "image_id": number, "label": label, "class": CLASSES[label]})
                bar.update()
            write_text(folder / f"{split}.json", json.dumps(records))


def _find() -> Path:
    """The first folder that has any of the files; a ``UserError`` if there is none or it lacks some."""
    names = [name for pair in FILES.values() for name in pair]
    user_folder = datasets_root() / "fashion-mnist"
    for folder in (user_folder, DEBIAN_FOLDER):
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return folder
        if len(missing) < len(names):
            raise UserFileNotFoundError(
                f"{folder}: {', '.join(missing)} is missing, but the other Fashion-MNIST files exist"
            )
    raise UserFileNotFoundError(
        f"Fashion-MNIST is neither in {user_folder} nor in {DEBIAN_FOLDER}: put {', '.join(names)} into {user_folder} "
        "(github.com/zalandoresearch/fashion-mnist has them), or install Debian's package: "
        "apt-get install dataset-fashion-mnist"
    )


def _load(images_file: Path, labels_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 28, 28)`` and labels ``(N,)``, both uint8."""
    images = _read_idx(images_file, dimensions=3)
    labels = _read_idx(labels_file, dimensions=1)
    if images.shape[1:] != (SIZE, SIZE):
        raise UserError(f"{images_file}: images of {images.shape[1]}x{images.shape[2]} pixels, expected {SIZE}x{SIZE}")
    if len(images) != len(labels) or len(images) == 0:
        raise UserError(
            f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels; download both again"
        )
    if labels.max() >= len(CLASSES):
        raise UserError(f"{labels_file}: has the label {labels.max()}, expected 0 to {len(CLASSES) - 1}")
    return images, labels


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads the IDX format: 0, 0, 8 (unsigned bytes), number of dimensions, sizes as big-endian int32, data."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or not a gzip file ({error}); download it again") from None
    header = 4 * (1 + dimensions)
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"{path}: not an IDX file of bytes with {dimensions} dimensions; download it again")
    shape = np.frombuffer(content, ">i4", dimensions, offset=4).tolist()
    data = np.frombuffer(content, np.uint8, offset=header)
    if data.size != np.prod(shape):
        raise UserError(f"{path}: its header says {shape}, but {data.size} bytes follow; download it again")
    return data.reshape(shape)
