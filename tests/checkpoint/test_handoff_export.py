"""Files that an export writes and leaves behind, and the config that it was verified with."""

import os

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import ClsCheckpointer, build_info, export_backbone, read_checkpoint, verify_backbone
from imgcls.config import load_cfg


@pytest.fixture
def config(request):
    def load(name, *changes):
        path = request.config.rootpath / "configs" / f"{name}.yaml"
        return load_cfg(str(path), ["MODEL.DEVICE", "cpu", "MODEL.MNET.WIDTH_MULT", "0.25", *changes])

    return load


@pytest.fixture
def source(config, tmp_path):
    cfg = config("Base_image_cls", "DATASETS.TRAIN", "()")
    (tmp_path / "run").mkdir()
    ClsCheckpointer(build_model(cfg), str(tmp_path / "run"), info=build_info(cfg, ["a", "b"])).save("model_final")
    return str(tmp_path / "run" / "model_final.pth")


def test_verification_does_not_change_the_file(source, config, tmp_path):
    export_backbone(source, str(tmp_path / "plain.pth"))
    export_backbone(source, str(tmp_path / "verified.pth"), verify=config("COCO-Detection/retinanet_mnetv1_025_FPN_1x"))
    plain, verified = (read_checkpoint(str(tmp_path / f"{name}.pth")) for name in ("plain", "verified"))
    tensors = verified.pop("model")
    assert all(torch.equal(tensor, tensors.pop(name)) for name, tensor in plain.pop("model").items()) and not tensors
    assert plain == verified
    assert sorted(os.listdir(tmp_path)) == ["plain.pth", "run", "verified.pth"]


@pytest.mark.parametrize("with_verify", [False, True])
@pytest.mark.parametrize("target", ["run", "gone/backbone.pth"])
def test_a_target_that_cannot_be_written_is_named(source, config, tmp_path, with_verify, target):
    verify = config("COCO-Detection/retinanet_mnetv1_025_FPN_1x") if with_verify else None
    path = str(tmp_path / target)
    with pytest.raises(ValueError, match="cannot be written") as raised:
        export_backbone(source, path, verify=verify)
    assert str(raised.value).startswith(f"{path}: ")
    assert os.listdir(tmp_path) == ["run"]


def test_the_detectors_config_may_be_frozen_and_is_not_changed(source, config, tmp_path):
    path = str(tmp_path / "backbone.pth")
    export_backbone(source, path)
    # MODEL.WEIGHTS of the detector must not be read.
    cfg = config("COCO-Detection/retinanet_mnetv1_025_FPN_1x", "MODEL.WEIGHTS", source, "MODEL.DEVICE", "cuda")
    before = cfg.dump()
    cfg.freeze()
    assert verify_backbone(path, cfg).complete
    assert cfg.dump() == before and cfg.is_frozen()
