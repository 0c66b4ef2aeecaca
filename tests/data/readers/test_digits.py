import builtins
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from sklearn.datasets import load_digits

from imgcls.data.catalog import get_dataset
from imgcls.data.readers import digits
from imgcls.errors import UserError


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data sets")


@pytest.fixture
def root(shared_root, monkeypatch):
    """One folder for all tests of this file: the images are written once."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_root))
    return shared_root


def pixels(record):
    return np.asarray(Image.open(record["file_name"]))


def test_the_split(root):
    train, test = get_dataset("digits_train"), get_dataset("digits_test")
    assert (len(train.records), len(test.records)) == (1437, 360)
    assert train.classes == test.classes == [str(i) for i in range(10)]
    numbers = [record["image_id"] for record in [*train.records, *test.records]]
    assert sorted(numbers) == list(range(1797))
    target = load_digits().target
    assert all(record["label"] == target[record["image_id"]] for record in [*train.records, *test.records])
    assert set(Counter(record["label"] for record in test.records).values()) <= {35, 36, 37}
    assert train.records[0]["file_name"] == str(root / "imgcls" / "digits" / "train" / "0" / "0000.png")


@pytest.mark.parametrize(
    ("name", "key", "digest"),
    [
        ("digits_test", "image_id", "9f682b80f7670c11"),
        ("digits_mosaic_train", "labels", "d4a20a57e78bb416"),
        ("digits_mosaic_test", "labels", "8a4b2b38cafaaac2"),
    ],
)
def test_the_sets_never_change(root, name, key, digest):
    values = [record[key] for record in get_dataset(name).records]
    assert hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16] == digest


def test_the_images_are_the_digits(root):
    images = load_digits().images
    for record in get_dataset("digits_test").records[::60]:
        image = pixels(record)
        assert (image.shape, image.dtype) == ((32, 32), np.uint8)
        small = image.reshape(8, 4, 8, 4).mean((1, 3)) * 16 / 255
        original = images[record["image_id"]]
        assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.97
        assert image.max() > 160


def test_written_once(root):
    first = root / "imgcls" / "digits" / "train.json"
    get_dataset("digits_train")
    before = first.stat().st_mtime_ns
    get_dataset("digits_train")
    assert first.stat().st_mtime_ns == before


def test_detectron2s_catalogs_have_them(root):
    assert len(DatasetCatalog.get("digits_test")) == 360
    assert MetadataCatalog.get("digits_test").evaluator_type == "imagenet"


def test_mosaics(root):
    whole = {split: get_dataset(f"digits_{split}") for split in ("train", "test")}
    known = {
        split: {pixels(record).tobytes(): record["label"] for record in dataset.records}
        for split, dataset in whole.items()
    }
    for split, size in (("train", 4000), ("test", 1000)):
        mosaics = get_dataset(f"digits_mosaic_{split}")
        assert mosaics.multi_label
        assert len(mosaics.records) == size
        assert mosaics.classes == [str(i) for i in range(10)]
        filled = Counter()
        for record in mosaics.records[:300]:
            image = pixels(record)
            assert image.shape == (64, 64)
            cells = [image[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
            found = [
                known[split][cell.tobytes()] for cell in cells if cell.any()
            ]  # KeyError: a digit of the other split
            assert record["labels"] == sorted(set(found))
            filled[len(found)] += 1
        assert set(filled) == {0, 1, 2, 3, 4}
    assert MetadataCatalog.get("digits_mosaic_test").evaluator_type == "multilabel"


def test_mosaics_are_the_same_on_every_machine(root, tmp_path, monkeypatch):
    monkeypatch.setitem(digits.MOSAICS, "train", 30)
    monkeypatch.setitem(digits.MOSAICS, "test", 30)
    digits._write_mosaics(tmp_path)
    for split in ("train", "test"):
        again = json.loads((tmp_path / f"{split}.json").read_text())
        for record, other in zip(again, get_dataset(f"digits_mosaic_{split}").records, strict=False):
            assert record["labels"] == other["labels"]
            assert np.array_equal(np.asarray(Image.open(tmp_path / record["file_name"])), pixels(other))


def test_a_missing_scikit_learn_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'need scikit-learn: pip install -e "\.\[demo\]"'):
        get_dataset("digits_train")
    assert list((tmp_path / "imgcls").iterdir()) == []
