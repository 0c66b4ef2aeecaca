import json
import os

import pytest

from imgcls.data.catalog import get_dataset, read_datasets
from imgcls.data.readers.imagenet import make_imagenet_json
from imgcls.data.readers.json_file import read_json
from imgcls.errors import UserError, UserFileNotFoundError


def make(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


@pytest.fixture
def root(tmp_path):
    return make(
        tmp_path / "image net",
        "ILSVRC2012_img_train/n02/b.JPEG",
        "ILSVRC2012_img_train/n02/a.JPEG",
        "ILSVRC2012_img_train/n01/c.JPEG",
        "ILSVRC2012_img_train/n03/d.JPEG",
        "ILSVRC2012_img_val/n03/v.JPEG",
        "ILSVRC2012_img_val/n01/w.JPEG",
    )


def test_records_of_both_splits(root, tmp_path):
    save = tmp_path / "data" / "ImageNet2012"
    paths = make_imagenet_json(root, save)
    assert sorted(os.listdir(save)) == sorted(path.name for path in paths)
    train = json.loads((save / "imagenet_detectron2_train.json").read_text())
    base = "../../image net/ILSVRC2012_img_train"
    assert train == [
        {"file_name": f"{base}/n01/c.JPEG", "image_id": 1, "label": 0, "class": "n01"},
        {"file_name": f"{base}/n02/a.JPEG", "image_id": 2, "label": 1, "class": "n02"},
        {"file_name": f"{base}/n02/b.JPEG", "image_id": 3, "label": 1, "class": "n02"},
        {"file_name": f"{base}/n03/d.JPEG", "image_id": 4, "label": 2, "class": "n03"},
    ]
    val = json.loads((save / "imagenet_detectron2_val.json").read_text())
    assert [(record["image_id"], record["label"], record["class"]) for record in val] == [(1, 0, "n01"), (2, 2, "n03")]
    assert json.loads((save / "class_to_idx.json").read_text()) == {"n01": 0, "n02": 1, "n03": 2}


def test_the_same_images_give_the_same_bytes(root, tmp_path):
    first = [path.read_bytes() for path in make_imagenet_json(root, tmp_path / "x")]
    assert [path.read_bytes() for path in make_imagenet_json(root, tmp_path / "x")] == first
    assert str(tmp_path).encode() not in b"".join(first)


def test_both_splits_can_be_indexed(root, tmp_path):
    save = tmp_path / "x y"
    plain = [path.read_bytes() for path in make_imagenet_json(root, save)]
    records = [list(read_json(str(save / f"imagenet_detectron2_{split}.json")).records) for split in ("train", "val")]
    paths = make_imagenet_json(root, save, index=True)
    assert [path.read_bytes() for path in paths[:3]] == plain
    assert [path.name for path in paths[3:]] == ["imagenet_detectron2_train.index", "imagenet_detectron2_val.index"]
    for path in paths[:2]:  # read_json must use the index
        path.write_bytes(b" " * path.stat().st_size)
        os.utime(path, (0, 0))
    assert [list(read_json(str(path)).records) for path in paths[:2]] == records


def test_short_folder_names(tmp_path):
    make(tmp_path, "train/a/1.png", "val/a/2.png")
    paths = make_imagenet_json(tmp_path, tmp_path)
    assert json.loads(paths[0].read_text())[0]["file_name"] == "train/a/1.png"


def test_the_registered_names(root, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    make_imagenet_json(root, tmp_path / "data" / "ImageNet2012")
    datasets = read_datasets(["imagenet_train"], ["imagenet_val"])
    [train], [val] = datasets.train, datasets.test
    assert train.classes == val.classes == ["n01", "n02", "n03"]
    assert [record["label"] for record in val.records] == [0, 2]
    assert all(os.path.isfile(record["file_name"]) for record in [*train.records, *val.records])


def test_a_linked_save_folder_still_finds_the_images(root, tmp_path, monkeypatch):
    (tmp_path / "far" / "away" / "real").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "far" / "away" / "real", tmp_path / "data" / "ImageNet2012")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    make_imagenet_json(root, tmp_path / "data" / "ImageNet2012")
    assert all(os.path.isfile(record["file_name"]) for record in get_dataset("imagenet_train").records)


def test_a_missing_json_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    message = r"imagenet_detectron2_val\.json: no such file; make it with: python tools/make_imagenet_json\.py --root"
    with pytest.raises(FileNotFoundError, match=message):
        get_dataset("imagenet_val")


def test_a_class_that_only_val_has(root, tmp_path):
    make(root, "ILSVRC2012_img_val/n04/x.JPEG")
    with pytest.raises(UserError, match="ILSVRC2012_img_val: the class n04 is not among the 3"):
        make_imagenet_json(root, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_missing_and_empty_splits(tmp_path):
    with pytest.raises(UserFileNotFoundError, match="has no folder ILSVRC2012_img_train or train"):
        make_imagenet_json(tmp_path, tmp_path)
    make(tmp_path, "train/a/1.png", "train/b/readme.txt", "val/flat.JPEG")
    with pytest.raises(UserError, match="b: no images in this class folder"):
        make_imagenet_json(tmp_path, tmp_path)
    make(tmp_path, "train/b/1.png")
    with pytest.raises(UserError, match="val: has images but no class sub-folders"):
        make_imagenet_json(tmp_path, tmp_path)
