"""Weights of ours in a detector's run by the entry script's checkpointer."""

import logging
import pickle

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import ClsCheckpointer, DetectorCheckpointer, build_expected, build_info, export_backbone
from imgcls.config import get_cfg


@pytest.fixture
def files(tmp_path):
    """A classifier over detectron2's ResNet, whose builder does not look at weights, and its backbone."""
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_resnet_backbone",
         "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.OUT_FEATURES", ["res5"],
         "MODEL.CLSNET.IN_FEATURES", ["res5"], "DATASETS.TRAIN", (), "OUTPUT_DIR", str(tmp_path)]
    )  # fmt: skip
    ClsCheckpointer(build_model(cfg), str(tmp_path), info=build_info(cfg)).save("model_final")
    export_backbone(str(tmp_path / "model_final.pth"), str(tmp_path / "backbone.pth"))
    return tmp_path


def checkpointer(*changes):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18,
         "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
         "MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"],
         *changes]
    )  # fmt: skip
    return DetectorCheckpointer(build_model(cfg), "", expected=build_expected(cfg))


def test_the_count_of_loaded_tensors_is_one_line_of_the_log(files, caplog):
    path = str(files / "backbone.pth")
    with caplog.at_level(logging.INFO, logger="imgcls"):
        checkpointer().load(path)
    assert [r.message for r in caplog.records if r.name.startswith("imgcls")] == [
        f"{path}: 100/100 backbone tensors loaded"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["INPUT.FORMAT", "RGB"], r'backbone\.pth was trained on other preprocessing.*INPUT\.FORMAT "BGR"'),
        (["MODEL.RESNETS.DEPTH", 34], r"100/180 backbone tensors loaded"),
    ],
)
def test_what_does_not_fit_stops_before_anything_is_loaded(files, changes, message):
    target = checkpointer(*changes)
    before = {key: value.clone() for key, value in target.model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        target.load(str(files / "backbone.pth"))
    assert all(torch.equal(value, before[key]) for key, value in target.model.state_dict().items())


def test_a_whole_classifier_is_refused(files):
    with pytest.raises(ValueError, match=r"model_final\.pth is a whole classifier.*export_backbone\.py"):
        checkpointer().load(str(files / "model_final.pth"))


def test_a_detectors_own_checkpoint_is_detectron2s_matter(files):
    source, target = checkpointer(), checkpointer()
    torch.save({"model": source.model.state_dict(), "iteration": 4}, files / "detector.pth")
    assert target.load(str(files / "detector.pth"))["iteration"] == 4
    there = source.model.state_dict()
    assert all(torch.equal(value, there[key]) for key, value in target.model.state_dict().items())
    assert target.load("") == {}


def test_bad_files(files):
    data = (files / "backbone.pth").read_bytes()
    (files / "short.pth").write_bytes(data[: len(data) // 2])
    (files / "zoo.pkl").write_bytes(pickle.dumps({"model": {}}))
    for name, message in (("short.pth", "truncated"), ("zoo.pkl", "pickle"), ("gone.pth", "no such checkpoint")):
        with pytest.raises(ValueError, match=message):
            checkpointer().load(str(files / name))
