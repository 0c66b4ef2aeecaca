"""Detection is evaluated by pycocotools, with and without detectron2's compiled extension."""

import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances

from imgcls.engine import Trainer


@pytest.fixture
def one_box(tmp_path):
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "1.png", "width": 50, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    register_coco_instances("one_box", {}, str(tmp_path / "set.json"), str(tmp_path))
    DatasetCatalog.get("one_box")
    yield "one_box"
    DatasetCatalog.remove("one_box")
    MetadataCatalog.remove("one_box")


def test_what_is_detected_is_scored(one_box, tiny_cfg):
    tiny_cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    evaluator = Trainer.build_evaluator(tiny_cfg, one_box)
    found = Instances((40, 50))
    found.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 25.0, 25.0]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
