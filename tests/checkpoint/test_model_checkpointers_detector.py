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


def checkpointer(*changes, folder="", **checkpointables):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18,
         "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
         "MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"],
         *changes]
    )  # fmt: skip
    return DetectorCheckpointer(build_model(cfg), str(folder), expected=build_expected(cfg), keep=1, **checkpointables)


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


def test_a_detectors_run_goes_on_or_is_told_why_not(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    source = checkpointer(folder=tmp_path, optimizer=optimizer)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        source.resume_or_load("", resume=True)
    for iteration in (9, 19):
        source.save(f"model_{iteration:07d}", iteration=iteration)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000019.pth"]
    assert "imgcls" not in torch.load(tmp_path / "model_0000019.pth")
    target = checkpointer(folder=tmp_path, optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.0))
    assert target.resume_or_load("", resume=True)["iteration"] == 19
    assert target.checkpointables["optimizer"].param_groups[0]["lr"] == 0.1
    there = source.model.state_dict()
    assert all(torch.equal(value, there[key]) for key, value in target.model.state_dict().items())


def test_a_backbone_is_nothing_to_resume_from(files):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match=r"backbone\.pth has no 'optimizer', 'iteration'.*set MODEL\.WEIGHTS"):
        checkpointer(optimizer=optimizer).resume_from(str(files / "backbone.pth"))


def test_another_detector_may_have_other_classes_but_no_other_backbone(files):
    path = str(files / "detector.pth")
    torch.save({"model": checkpointer().model.state_dict()}, path)
    checkpointer("MODEL.RETINANET.NUM_CLASSES", 3).load(path)
    with pytest.raises(ValueError, match=r"detector\.pth does not fit the model's backbone: 2 of 21 convolutions have"):
        checkpointer("MODEL.RESNETS.STEM_OUT_CHANNELS", 32).load(path)


def test_a_file_of_which_nothing_fits_is_refused(files):
    torch.save({"conv_stem.weight": torch.zeros(1)}, files / "other.pth")
    with pytest.raises(
        ValueError, match=r"other\.pth does not fit the model's backbone: it has none of it.*convert_weights"
    ):
        checkpointer().load(str(files / "other.pth"))
