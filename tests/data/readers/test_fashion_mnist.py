import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from imgcls.data.catalog import get_dataset
from imgcls.data.readers import fashion_mnist
from imgcls.errors import UserError, UserFileNotFoundError

TRAIN, TEST = 40, 20


def idx(array):
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


def put(path, content):
    path.write_bytes(gzip.compress(content))


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small set in the published format, in DETECTRON2_DATASETS/fashion-mnist."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root é"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    folder = tmp_path / "root é" / "fashion-mnist"
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    arrays = {}
    for split, size in (("train", TRAIN), ("t10k", TEST)):
        images = random.randint(0, 256, (size, 28, 28)).astype(np.uint8)
        labels = (np.arange(size) * 7 % 10).astype(np.uint8)
        put(folder / f"{split}-images-idx3-ubyte.gz", idx(images))
        put(folder / f"{split}-labels-idx1-ubyte.gz", idx(labels))
        arrays[split] = images, labels
    return folder, arrays


def test_images_and_labels_are_the_files(source, capfd):
    folder, arrays = source
    for split, name in (("train", "train"), ("t10k", "test")):
        images, labels = arrays[split]
        dataset = get_dataset(f"fashion_mnist_{name}")
        assert dataset.classes[0] == "T-shirt/top"
        assert dataset.classes[9] == "Ankle boot"
        assert len(dataset.classes) == 10
        assert [record["label"] for record in dataset.records] == labels.tolist()
        for record, image in zip(dataset.records, images, strict=True):
            assert np.array_equal(np.asarray(Image.open(record["file_name"])), image)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{TRAIN + TEST}/{TRAIN + TEST}" in err  # the progress bar, once
    assert [path.name for path in (folder.parent / "imgcls").iterdir()] == ["fashion_mnist"]


def test_debians_folder_is_found(source, tmp_path):
    folder, _ = source
    folder.rename(tmp_path / "debian")
    assert len(get_dataset("fashion_mnist_test").records) == TEST


def test_a_missing_set_lists_both_sources(source, tmp_path):
    folder, _ = source
    folder.rename(tmp_path / "away")
    with pytest.raises(UserFileNotFoundError) as caught:
        get_dataset("fashion_mnist_train")
    message = str(caught.value)
    for part in (str(folder), "train-images-idx3-ubyte.gz", "apt-get install dataset-fashion-mnist"):
        assert part in message
    assert not list((folder.parent / "imgcls").iterdir())


def test_one_missing_file_is_named(source):
    folder, _ = source
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserFileNotFoundError, match=r"fashion-mnist: t10k-labels-idx1-ubyte\.gz is missing"):
        get_dataset("fashion_mnist_train")


def cut_gzip(path):
    path.write_bytes(path.read_bytes()[:-500])


def not_gzip(path):
    path.write_bytes(b"<html>not found</html>")


def empty(path):
    path.write_bytes(b"")


def wrong_magic(path):
    content = gzip.decompress(path.read_bytes())
    put(path, b"\0\0\x0d\x03" + content[4:])


def labels_instead(path):
    put(path, idx(np.zeros(TRAIN, np.uint8)))


def too_short(path):
    put(path, gzip.decompress(path.read_bytes())[:-1])


def wrong_size(path):
    put(path, idx(np.zeros((TRAIN, 32, 32), np.uint8)))


def other_count(path):
    put(path, idx(np.zeros((TRAIN + 1, 28, 28), np.uint8)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_gzip, "truncated or not a gzip file"),
        (not_gzip, "truncated or not a gzip file"),
        (empty, "truncated or not a gzip file|not an IDX file"),
        (wrong_magic, "not an IDX file of bytes with 3 dimensions"),
        (labels_instead, "not an IDX file of bytes with 3 dimensions"),
        (too_short, r"its header says \[40, 28, 28\], but 31359 bytes follow"),
        (wrong_size, "images of 32x32 pixels, expected 28x28"),
        (other_count, "has 41 images, .* 40 labels"),
    ],
)
def test_a_damaged_file_is_named(source, damage, message):
    folder, _ = source
    damage(folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(UserError, match=rf"train-images-idx3-ubyte\.gz:? ({message})"):
        get_dataset("fashion_mnist_train")


def test_a_label_out_of_range(source):
    folder, _ = source
    put(folder / "train-labels-idx1-ubyte.gz", idx(np.full(TRAIN, 10, np.uint8)))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: has the label 10, expected 0 to 9"):
        get_dataset("fashion_mnist_train")


def test_a_root_that_cannot_be_written(source, tmp_path):
    folder, _ = source
    (folder.parent / "imgcls").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot be written .*set DETECTRON2_DATASETS"):
        get_dataset("fashion_mnist_train")
