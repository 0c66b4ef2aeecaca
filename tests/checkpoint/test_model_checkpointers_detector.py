"""Checkpoints of detectors, and weights that are loaded into them: ours, other projects', and detectron2's own."""

import logging
import os
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from imgcls.checkpoint import (
    ClsCheckpointer,
    DetectorCheckpointer,
    build_detector_info,
    build_expected,
    build_info,
    export_backbone,
    read_checkpoint,
    saved_seed,
)
from imgcls.config import get_cfg

RESNET = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
STAGES = ["res3", "res4", "res5"]


def merged(*changes):
    cfg = get_cfg()
    cfg.merge_from_list([*RESNET, *changes])
    return cfg


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier over detectron2's ResNet, whose builder does not look at weights, and its backbone."""
    folder = tmp_path_factory.mktemp("files")
    cfg = merged(
        *["MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.BACKBONE.NAME", "build_resnet_backbone"],
        *["MODEL.RESNETS.OUT_FEATURES", ["res5"], "MODEL.CLSNET.IN_FEATURES", ["res5"], "DATASETS.TRAIN", ()],
    )
    ClsCheckpointer(build_model(cfg), str(folder), info=build_info(cfg, ["a", "b"])).save("model_final")
    export_backbone(str(folder / "model_final.pth"), str(folder / "backbone.pth"))
    return folder


def evaluated(*changes, folder="", **kwargs):
    """The checkpointer of a RetinaNet that is only evaluated, with config values changed."""
    cfg = merged(
        *["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"],
        *["MODEL.RESNETS.OUT_FEATURES", STAGES, "MODEL.FPN.IN_FEATURES", STAGES],
        *["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.RETINANET.NUM_CONVS", 1],
        *changes,
    )
    info, expected = build_detector_info(cfg), build_expected(cfg)
    return DetectorCheckpointer(build_model(cfg), str(folder), info=info, expected=expected, keep=1, **kwargs)


def trained(*changes, lr=0.1, **kwargs):
    """The same for a run that trains."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    return evaluated(*changes, optimizer=optimizer, **kwargs)


def same_weights(one, other):
    before, after = one.model.state_dict(), other.model.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_the_count_of_loaded_tensors_is_one_line_of_the_log(files, caplog):
    path = str(files / "backbone.pth")
    with caplog.at_level(logging.INFO, logger="imgcls"):
        trained().load(path, checkpointables=[])
    assert [r.message for r in caplog.records if r.name.startswith("imgcls")] == [
        f"{path}: 100/100 backbone tensors loaded"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["INPUT.FORMAT", "RGB"], r'backbone\.pth does not fit the config: .*INPUT\.FORMAT "BGR"'),
        (["MODEL.RESNETS.DEPTH", 34], r'100/180 backbone tensors loaded.*set MODEL\.RESNETS\.DEPTH "18"'),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_before_anything_is_loaded(files, changes, message):
    target = trained(*changes)
    before = {key: value.clone() for key, value in target.model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        target.load(str(files / "backbone.pth"), checkpointables=[])
    assert all(torch.equal(value, before[key]) for key, value in target.model.state_dict().items())


def test_kinds_of_files_that_a_detector_does_not_take(files):
    with pytest.raises(ValueError, match=r"model_final\.pth is a whole classifier.*export_backbone\.py"):
        trained().load(str(files / "model_final.pth"))
    with pytest.raises(ValueError, match=r"backbone\.pth has no 'optimizer', 'iteration'.*set MODEL\.WEIGHTS"):
        trained().resume_from(str(files / "backbone.pth"))
    with pytest.raises(ValueError, match=r"backbone\.pth does not fit the model: 24 tensors are missing"):
        evaluated().load(str(files / "backbone.pth"))  # its heads would be random


def test_a_detector_without_an_entry_is_loaded_as_detectron2_does(tmp_path):
    source, target = evaluated(), evaluated()
    torch.save({"model": source.model.state_dict(), "iteration": 4}, tmp_path / "detector.pth")
    assert target.load(str(tmp_path / "detector.pth"))["iteration"] == 4
    assert same_weights(source, target) and target.load("") == {}


def test_bad_files(files, tmp_path):
    data = (files / "backbone.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(data[: len(data) // 2])
    for name, message in (("short.pth", "truncated"), ("gone.pth", "no such checkpoint")):
        with pytest.raises(ValueError, match=message):
            trained().load(str(tmp_path / name))


def test_a_checkpoint_has_the_config_and_its_seed(tmp_path):
    source = trained("SEED", 41, folder=tmp_path)
    for iteration in (9, 19):
        source.save(f"model_{iteration:07d}", iteration=iteration)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000019.pth"]
    assert saved_seed(str(tmp_path)) == 41
    info = read_checkpoint(str(tmp_path / "model_0000019.pth"))["imgcls"]
    assert info["kind"] == "detector" and info["version"] and info["preprocessing"]["format"] == "BGR"
    target = trained(folder=tmp_path)
    assert DetectionCheckpointer(target.model).load(str(tmp_path / "model_0000019.pth"))["iteration"] == 19
    assert same_weights(source, target)
    with pytest.raises(ValueError, match=r"_0000019\.pth is a detector's checkpoint; give a classifier's"):
        export_backbone(str(tmp_path / "model_0000019.pth"), str(tmp_path / "b.pth"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector's checkpoint."""
    folder = tmp_path_factory.mktemp("detector")
    trained(folder=folder).save("model_0000019", iteration=19)
    return folder / "model_0000019.pth"


def test_a_run_resumes_with_a_warning_of_what_changed(detector, caplog):
    target = trained("SOLVER.BASE_LR", 0.5, lr=3.0, folder=detector.parent)
    assert target.resume_or_load("", resume=True)["iteration"] == 19
    assert target.checkpointables["optimizer"].param_groups[0]["lr"] == 0.1
    assert "SOLVER.BASE_LR was 0.001 and is now 0.5; the run continues with the new ones" in caplog.text


STRIDE = ("MODEL.RESNETS.STRIDE_IN_1X1", False)
ANCHORS = ("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]])
CLASSES = ("MODEL.RETINANET.NUM_CLASSES", 3)
FREEZE = ("MODEL.BACKBONE.FREEZE_AT", 0)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (STRIDE, ["evaluation", "fine-tuning", "resume"]),
        (("INPUT.FORMAT", "RGB"), ["evaluation", "fine-tuning", "resume"]),
        (ANCHORS, ["evaluation", "resume"]),
        (CLASSES, ["evaluation", "resume"]),
        (FREEZE, ["resume"]),
    ],
)
def test_what_must_be_equal_for_each_use(detector, change, refused):
    attempts = {
        "evaluation": lambda: evaluated(*change).load(str(detector)),
        "fine-tuning": lambda: trained(*change).load(str(detector), checkpointables=[]),
        "resume": lambda: trained(*change).resume_from(str(detector)),
    }
    for use, attempt in attempts.items():
        if use in refused:
            with pytest.raises(ValueError, match=r"_0000019\.pth does not fit the (config|model)"):
                attempt()
        else:
            attempt()


def test_another_detector_may_have_other_classes_but_no_other_backbone(tmp_path):
    path = str(tmp_path / "detector.pth")
    torch.save({"model": evaluated().model.state_dict()}, path)
    trained(*CLASSES).load(path, checkpointables=[])
    with pytest.raises(ValueError, match=r"detector\.pth does not fit the model's backbone: 2 of 21 convolutions have"):
        trained("MODEL.RESNETS.STEM_OUT_CHANNELS", 32).load(path, checkpointables=[])


@pytest.mark.parametrize(
    "content",
    [{"conv_stem.weight": torch.zeros(1)}, {"epoch": 3, "state_dict": {"layer1.0.conv1.weight": torch.zeros(1)}}],
)
def test_a_file_of_which_nothing_fits_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other\.pth does not fit the model's backbone: it has none of it.*convert_weights"
    ):
        trained().load(str(tmp_path / "other.pth"), checkpointables=[])


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def pickles(tmp_path, monkeypatch):
    """Files that create the file ``ran`` when they are unpickled, also below a folder named ``a:``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:").mkdir()
    content = {"model": Marker(str(tmp_path / "ran"))}
    for name in ("y.pkl", "a:/y.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    for name in ("y.pth", "a:/y.pth"):
        torch.save(content, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "path", ["y.pkl", "y.pth", "a://y.pkl", "a://y.pth", "https://host/y.pkl", "https://host/y.pth"]
)
def test_nothing_is_unpickled_without_the_flag(pickles, monkeypatch, path):
    target = trained()
    fetched = []

    def fetch(url, **_kwargs):
        fetched.append(url)
        return str(pickles / url.rpartition("/")[2])

    if path.startswith("https"):
        monkeypatch.setattr(target.path_manager, "get_local_path", fetch)
    with pytest.raises(ValueError, match=r"--allow-pickle") as raised:
        target.load(path, checkpointables=[])
    assert path in str(raised.value) and "\n" not in str(raised.value)
    assert not (pickles / "ran").exists() and fetched.count(path) == (2 if path == "https://host/y.pth" else 0)


@pytest.mark.parametrize("path", ["zoo.pkl", "https://host/zoo.pkl"])
def test_files_of_detectron2s_model_zoo_are_read_with_the_flag(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    source, target = evaluated(), evaluated(allow_pickle=True)
    arrays = {key: value.numpy() for key, value in source.model.state_dict().items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "the model zoo"}))
    if path.startswith("https"):
        monkeypatch.setattr(target.path_manager, "get_local_path", lambda _url, **_kwargs: str(tmp_path / "zoo.pkl"))
    target.load(path)
    assert same_weights(source, target)


def test_a_remote_file_of_tensors_is_read_without_the_flag(detector, monkeypatch):
    target = evaluated()
    monkeypatch.setattr(target.path_manager, "get_local_path", lambda _url, **_kwargs: str(detector))
    assert target.load("https://host/model_0000019.pth")["iteration"] == 19


def test_a_remote_file_that_cannot_be_fetched_is_one_line(monkeypatch):
    target = evaluated()

    def fail(_url, **_kwargs):
        raise OSError("no route to host")

    with pytest.raises(FileNotFoundError, match=r"MODEL\.WEIGHTS s3://host/x\.pth: no such checkpoint"):
        target.load("s3://host/x.pth")
    monkeypatch.setattr(target.path_manager, "get_local_path", fail)
    with pytest.raises(ValueError, match=r"https://host/x\.pth cannot be fetched \(no route to host\)"):
        target.load("https://host/x.pth")
    assert not os.path.exists("s3:")
