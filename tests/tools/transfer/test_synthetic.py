import json
import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from transfer.synthetic import register_synthetic_set

from imgcls.data.catalog import classification_names, get_dataset
from imgcls.errors import UserError, UserFileNotFoundError

NAMES = ("synthetic_train", "synthetic_test")


def write(root, classes=("cat", "dog"), count=3):
    """Writes a set as the tool does, with one box per image."""
    for split in ("train", "test"):
        (root / "synthetic" / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            Image.new("RGB", (64, 64)).save(root / "synthetic" / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1 + number % len(classes),
                    "bbox": [number, 5, 20, 30],
                    "area": 600,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
        coco = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        (root / "synthetic" / f"{split}.json").write_text(json.dumps(coco))


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "datasets")
    return tmp_path / "datasets"


@pytest.mark.parametrize("split", ["train", "test"])
def test_detectron2_loads_it(root, split):
    records = DatasetCatalog.get(f"synthetic_{split}")
    assert [record["file_name"] for record in records] == [
        str(root / "synthetic" / split / f"{i}.png") for i in (1, 2, 3)
    ]
    assert [record["annotations"][0]["category_id"] for record in records] == [1, 0, 1]
    assert records[1]["annotations"][0]["bbox"] == [2, 5, 20, 30]
    assert records[1]["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    metadata = MetadataCatalog.get(f"synthetic_{split}")
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(root / "synthetic" / f"{split}.json")
    assert metadata.image_root == str(root / "synthetic" / split)


def test_detectron2_scores_it(root):
    """The true boxes score 100, and less if one of three has the wrong class."""
    evaluator = COCOEvaluator("synthetic_test", tasks=("bbox",), distributed=False, use_fast_impl=False)
    results = []
    for wrong in (False, True):
        evaluator.reset()
        for record in DatasetCatalog.get("synthetic_test"):
            (annotation,) = record["annotations"]
            found = Instances((64, 64))
            found.pred_boxes = Boxes(torch.tensor([BoxMode.convert(annotation["bbox"], 1, 0)], dtype=torch.float32))
            found.scores = torch.tensor([0.9])
            label = annotation["category_id"]
            found.pred_classes = torch.tensor([1 - label if wrong and record["image_id"] == 1 else label])
            evaluator.process([record], [{"instances": found}])
        results.append(evaluator.evaluate()["bbox"]["AP"])
    assert results[0] == pytest.approx(100)
    assert 0 < results[1] < 80


def test_it_follows_the_environment(root, tmp_path, monkeypatch):
    """A second root has other classes, and detectron2's metadata refuses a second value."""
    DatasetCatalog.get("synthetic_train")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "other"))
    write(tmp_path / "other", ("a", "b", "c"), count=4)
    assert len(DatasetCatalog.get("synthetic_train")) == 4
    metadata = MetadataCatalog.get("synthetic_train")
    assert metadata.thing_classes == ["a", "b", "c"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2}
    assert metadata.json_file == str(tmp_path / "other" / "synthetic" / "train.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_set_names_the_command(tmp_path, name):
    with pytest.raises(UserFileNotFoundError) as caught:
        DatasetCatalog.get(name)
    message = str(caught.value)
    assert str(tmp_path / "datasets" / "synthetic" / f"{name[10:]}.json") in message
    assert "python tools/make_synthetic_detection_set.py" in message and "set DETECTRON2_DATASETS" in message
    assert "\n" not in message


def test_it_is_no_classification_set(root):
    assert not set(NAMES) & set(classification_names())
    with pytest.raises(UserError, match='synthetic_train: record 1: has neither "label" nor "labels"'):
        get_dataset("synthetic_train")


def test_registering_reads_nothing_and_keeps_a_users_set(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", {"synthetic_train": lambda: ["his"]})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: pytest.fail("read at registration"))
    register_synthetic_set()
    assert DatasetCatalog.list() == list(NAMES)
    assert MetadataCatalog.list() == ["synthetic_test"]
    assert DatasetCatalog.get("synthetic_train") == ["his"]


def test_records_are_plain(root):
    """detectron2 serialises them for the workers of its loader."""
    for record in DatasetCatalog.get("synthetic_train"):
        assert not any(isinstance(value, np.generic) for value in record.values())
