"""Kinds of checkpoints, and the backbone in a classifier's."""

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import extract_backbone
from imgcls.checkpoint.backbone import kind_of, unwrap
from imgcls.config import load_cfg

MOB4 = ["MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "MODEL.MNET.OUT_FEATURES", "['mob4']"]


@pytest.mark.parametrize(
    ("config", "changes", "kind"),
    [
        ("Base_image_cls", [], "classifier"),
        (
            "Base_image_cls",
            ["MODEL.BACKBONE.NAME", "build_mnetv1_fpn_backbone", "MODEL.FPN.IN_FEATURES", "['mob5']",
             "MODEL.CLSNET.IN_FEATURES", "['p5']"],
            "classifier",
        ),
        ("COCO-Detection/retinanet_mnetv1_025_FPN_1x", [], "detector"),
        ("COCO-Detection/faster_rcnn_mnetv1_025_FPN_1x", [], "detector"),
        (
            "COCO-Detection/faster_rcnn_mnetv1_025_FPN_1x",
            [*MOB4, "MODEL.RPN.IN_FEATURES", "['mob4']", "MODEL.ROI_HEADS.IN_FEATURES", "['mob4']",
             "MODEL.ANCHOR_GENERATOR.SIZES", "[[64]]"],
            "detector",
        ),
        (
            "COCO-Detection/retinanet_mnetv1_025_FPN_1x",
            [*MOB4, "MODEL.RETINANET.IN_FEATURES", "['mob4']", "MODEL.ANCHOR_GENERATOR.SIZES", "[[64]]"],
            "detector",
        ),
    ],
)  # fmt: skip
def test_kind(request, config, changes, kind):
    path = request.config.rootpath / "configs" / f"{config}.yaml"
    state = build_model(
        load_cfg(str(path), ["MODEL.DEVICE", "cpu", "MODEL.MNET.WIDTH_MULT", "0.25", *changes])
    ).state_dict()
    assert kind_of({"model": state}) == kind
    assert kind_of({"model": {f"module.{name}": value for name, value in state.items()}}) == kind


def test_a_backbone_has_neither_head():
    for state in ({"backbone.stages.stem.weight": torch.zeros(1)}, {"stages.stem.weight": torch.zeros(1)}, {}):
        assert kind_of({"model": state}) == kind_of({"model": state, "imgcls": {"cfg": ""}}) == "backbone"


def test_a_detector_of_any_names_is_recognised_by_its_entry():
    checkpoint = {"model": {"detr.backbone.0.weight": torch.zeros(1)}, "imgcls": {"kind": "detector"}}
    assert kind_of(checkpoint) == "detector"
    with pytest.raises(ValueError, match=r"d\.pth is a detector's checkpoint"):
        extract_backbone(checkpoint, "d.pth")


def test_any_number_of_wrappers_is_removed():
    tensor = torch.zeros(1)
    assert unwrap({"module.module.a": tensor, "n_averaged": tensor}) == {"a": tensor}
    assert unwrap({"module.a": tensor, "b": tensor}) == {"module.a": tensor, "b": tensor}
    assert unwrap({}) == {}


def test_a_backbone_alone_is_refused():
    checkpoint = {"model": {"stages.stem.weight": torch.zeros(1)}, "imgcls": {}}
    with pytest.raises(
        ValueError, match=r"b\.pth has no tensor under 'backbone\.': it is already a backbone checkpoint"
    ):
        extract_backbone(checkpoint, "b.pth")
