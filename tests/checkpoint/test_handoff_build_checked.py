"""Weights that a script with detectron2's own checkpointer names for a detector on our backbones."""

import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone, build_model

from imgcls.checkpoint import build_detector_info
from imgcls.config import get_cfg

STAGES = ["mob3", "mob4", "mob5"]
FPN = ["MODEL.BACKBONE.NAME", "build_retinanet_mnetv1_fpn_backbone", "MODEL.MNET.OUT_FEATURES", STAGES,
       "MODEL.FPN.IN_FEATURES", STAGES]  # fmt: skip
PLAIN = ["MODEL.BACKBONE.NAME", "build_mnetv1_backbone"]


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.DEVICE", "cpu", "MODEL.MNET.WIDTH_MULT", 0.25,
         "MODEL.MNET.BLOCKS", [1, 1, 1, 1, 1], "MODEL.WEIGHTS", str(tmp_path / "weights.pth"), *FPN]
    )  # fmt: skip
    return cfg


@pytest.fixture
def tensors(cfg):
    """The backbone's, by their names in the backbone."""
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    return build_backbone(cfg).bottom_up.state_dict()


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


HEURISTICS = {"__author__": "me", "matching_heuristics": True}


@pytest.mark.parametrize(
    ("builder", "prefix", "entries", "fits"),
    [
        (FPN, "", {}, False),  # detectron2 looks for whole names
        (FPN, "", HEURISTICS, True),
        (FPN, "bottom_up.", HEURISTICS, True),
        (FPN, "backbone.", HEURISTICS, False),  # the 2020 project's files: nothing was loaded, with a warning
        (FPN, "backbone.", {}, False),
        (FPN, "backbone.bottom_up.", {}, True),
        (FPN, "module.backbone.bottom_up.", {}, True),
        (FPN, "module.", HEURISTICS, False),
        (FPN, "other.", HEURISTICS, False),
        (PLAIN, "backbone.", {}, True),
        (PLAIN, "backbone.bottom_up.", {}, False),
    ],
)
def test_a_foreign_file_is_accepted_if_detectron2_would_load_any_of_it(cfg, tensors, builder, prefix, entries, fits):
    torch.save({"model": prefixed(prefix, tensors), **entries}, cfg.MODEL.WEIGHTS)
    cfg.merge_from_list(builder)
    if fits:
        build_backbone(cfg)
    else:
        with pytest.raises(ValueError, match=r"weights\.pth does not fit the model's backbone: .*load none of its"):
            build_backbone(cfg)


def test_the_verdict_is_detectron2s(cfg, tensors):
    """Names decide about loading exactly as the check expects."""
    tensors = {name: tensor + 1 for name, tensor in tensors.items() if name.endswith("weight")}
    for prefix, entries, fits in (("", HEURISTICS, True), ("backbone.", HEURISTICS, False), ("", {}, False)):
        torch.save({"model": prefixed(prefix, tensors), **entries}, cfg.MODEL.WEIGHTS)
        other = cfg.clone()
        other.MODEL.WEIGHTS = ""
        other.merge_from_list(["MODEL.RETINANET.IN_FEATURES", ["p3"], "MODEL.ANCHOR_GENERATOR.SIZES", [[32]]])
        model = build_model(other)
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        loaded = model.backbone.bottom_up.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items()) is fits


@pytest.mark.parametrize("content", [{"epoch": 3, "state_dict": {"conv1.weight": torch.zeros(8, 3, 3, 3)}}, {}])
def test_a_file_of_another_network_is_refused(cfg, content):
    torch.save(content, cfg.MODEL.WEIGHTS)
    with pytest.raises(ValueError, match="does not fit the model's backbone"):
        build_backbone(cfg)


def test_another_width_without_an_entry_is_refused(cfg, tensors):
    torch.save({"model": tensors, **HEURISTICS}, cfg.MODEL.WEIGHTS)
    cfg.MODEL.MNET.WIDTH_MULT = 0.5
    with pytest.raises(ValueError, match="does not fit the model's backbone"):
        build_backbone(cfg)


def test_a_detectors_checkpoint_must_have_the_same_settings(cfg, tensors):
    content = {"model": prefixed("backbone.bottom_up.", tensors), "imgcls": build_detector_info(cfg)}
    torch.save(content, cfg.MODEL.WEIGHTS)
    build_backbone(cfg)
    cfg.MODEL.MNET.ACTIVATION = "leaky_relu"
    with pytest.raises(ValueError, match=r"ACTIVATION is relu6 in the checkpoint, leaky_relu in the config"):
        build_backbone(cfg)


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth", "a:/x.pth", "a:/x.pkl"])
def test_nothing_is_unpickled(cfg, tmp_path, monkeypatch, name):
    """Files that cannot be read safely are left to the checkpointer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:").mkdir()
    content = {"model": Marker(str(tmp_path / "ran"))}
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    cfg.MODEL.WEIGHTS = name.replace(":/", "://")
    build_backbone(cfg)
    assert not (tmp_path / "ran").exists()
