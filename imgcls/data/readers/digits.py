"""scikit-learn's handwritten digits as PNG files: single digits, and mosaics of up to four."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.json_file import read_json
from imgcls.disk import write_once, write_text
from imgcls.errors import UserError

TEST_SIZE = 360  # of 1,797; the split never changes, so that results can be compared
DIGIT_SIZE = 32
MOSAICS = {"train": 4000, "test": 1000}


def read_digits(split: str) -> RawDataset:
    """Reads 1,437 training or 360 test images, grey, 32x32; the label is the digit.

    Raises:
        UserError: scikit-learn is missing, or the folder of the generated files cannot be written.
    """
    return read_json(str(write_once("digits", _write_digits) / f"{split}.json"))


def read_digits_mosaic(split: str) -> RawDataset:
    """Reads 4,000 training or 1,000 test images, grey, 64x64: a 2x2 grid of 0 to 4 digits, which are the labels.

    Training mosaics contain training digits only, test mosaics test digits only.

    Raises:
        UserError: scikit-learn is missing, or the folder of the generated files cannot be written.
    """
    return read_json(str(write_once("digits_mosaic", _write_mosaics) / f"{split}.json"))


def _write_digits(folder: Path) -> None:
    for split, digits in _load_digits().items():
        records = []
        for number, image, label in zip(digits.numbers, digits.images, digits.labels, strict=True):
            file_name = f"{split}/{label}/{number:04d}.png"
            _save(folder / file_name, image)
            records.append({"file_name": file_name, "image_id": number, "label": label, "class": str(label)})
        write_text(folder / f"{split}.json", json.dumps(records))


def _write_mosaics(folder: Path) -> None:
    for seed, (split, digits) in enumerate(_load_digits().items()):
        random = np.random.RandomState(seed)  # unlike default_rng, its stream never changes
        records = []
        for number in range(MOSAICS[split]):
            mosaic = np.zeros((2 * DIGIT_SIZE, 2 * DIGIT_SIZE), np.uint8)
            labels = set()
            for cell in random.permutation(4)[: random.randint(5)]:
                chosen = random.randint(len(digits.labels))
                top, left = DIGIT_SIZE * (cell // 2), DIGIT_SIZE * (cell % 2)
                mosaic[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE] = digits.images[chosen]
                labels.add(digits.labels[chosen])
            file_name = f"{split}/{number:04d}.png"
            _save(folder / file_name, mosaic)
            present = sorted(labels)
            record = {"file_name": file_name, "image_id": number, "labels": present, "class": [str(d) for d in present]}
            records.append(record)
        write_text(folder / f"{split}.json", json.dumps(records))


def _load_digits() -> dict[str, SimpleNamespace]:
    """By split: ``numbers`` in the original set, ``images`` (uint8 ``(32, 32)`` each) and ``labels``."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise UserError('the digits datasets need scikit-learn: pip install -e ".[demo]"') from None
    source = load_digits()
    train, test = train_test_split(
        np.arange(len(source.target)), test_size=TEST_SIZE, random_state=0, stratify=source.target
    )
    return {
        split: SimpleNamespace(
            numbers=chosen.tolist(),
            images=[_enlarge(image) for image in source.images[chosen]],
            labels=source.target[chosen].tolist(),
        )
        for split, chosen in (("train", np.sort(train)), ("test", np.sort(test)))
    }


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Resizes ``(8, 8)``, 0-16, to uint8 ``(32, 32)``, 0-255."""
    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((DIGIT_SIZE, DIGIT_SIZE), Image.Resampling.BILINEAR))


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
