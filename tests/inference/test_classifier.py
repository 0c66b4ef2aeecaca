import copy
import json
import math

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import build_detector_info, build_info, read_checkpoint, write_checkpoint
from imgcls.engine import Trainer
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference.classifier import choose_device, load_checkpoint_classifier


@pytest.fixture
def checkpoint(tiny_cfg):
    """The entries of a classifier's checkpoint with random weights."""
    model = build_model(tiny_cfg)
    return {"model": model.state_dict(), "imgcls": build_info(tiny_cfg, ["blue", "green", "red"])}


@pytest.fixture
def save(tmp_path, checkpoint):
    """``save(version="2")``: writes the checkpoint with other values in its "imgcls" entry, and returns the path."""

    def write(**changes) -> str:
        path = str(tmp_path / "model.pth")
        entry = {**checkpoint["imgcls"], **changes}
        entry = {key: value for key, value in entry.items() if value is not None}
        write_checkpoint(path, {**checkpoint, "imgcls": entry})
        return path

    return write


IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_probabilities_are_those_of_the_model(tiny_cfg, save, checkpoint):
    path = save()
    classifier = load_checkpoint_classifier(path, "cpu")
    model = build_model(tiny_cfg)
    model.load_state_dict(checkpoint["model"])
    model.eval()
    with torch.no_grad():
        logits = model.logits(IMAGES)
    found = classifier.probabilities(IMAGES)
    assert torch.equal(found, logits.softmax(1)) and found.dtype == torch.float32 and not found.requires_grad
    info = classifier.info
    assert (info.classes, info.multi_label, info.thresholds, info.temperature) == (
        ["blue", "green", "red"], False, None, 1.0,
    )  # fmt: skip
    assert (info.input_size, info.crop_pct, info.source, info.device) == (32, 0.875, path, "cpu")
    assert info.contract == checkpoint["imgcls"]["preprocessing"]


def test_the_temperature_divides_the_logits(save):
    plain = load_checkpoint_classifier(save(), "cpu").probabilities(IMAGES)
    hot = load_checkpoint_classifier(save(temperature=2.0), "cpu").probabilities(IMAGES)
    torch.testing.assert_close(hot, (plain.log() / 2).softmax(1))


@pytest.mark.parametrize(
    ("saved", "thresholds"),
    [
        (None, [0.5, 0.5, 0.5]),
        ({"score": 0.3}, [0.3, 0.3, 0.3]),
        ({"score": 0.3, "classes": [0.1, 0.2, 0.9]}, [0.1, 0.2, 0.9]),
    ],
)
def test_a_sigmoid_head_has_a_threshold_for_each_class(tiny_cfg, save, saved, thresholds):
    tiny_cfg.MODEL.CLSNET.HEAD = "sigmoid"
    classifier = load_checkpoint_classifier(save(cfg=tiny_cfg.dump(), thresholds=saved), "cpu")
    assert classifier.info.multi_label and classifier.info.thresholds == thresholds
    assert not torch.allclose(classifier.probabilities(IMAGES).sum(1), torch.ones(4))


def test_a_wrong_number_of_thresholds_is_refused(tiny_cfg, save):
    tiny_cfg.MODEL.CLSNET.HEAD = "sigmoid"
    with pytest.raises(UserError, match="has 2 thresholds for 3 classes"):
        load_checkpoint_classifier(save(cfg=tiny_cfg.dump(), thresholds={"classes": [0.5, 0.5]}), "cpu")


def test_averaged_weights_are_used_where_there_are_any(tiny_cfg, tmp_path):
    tiny_cfg.SOLVER.EMA_DECAY, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.TEST.EVAL_PERIOD = 0.9, 4, 0
    Trainer(tiny_cfg).train()
    path = str(tmp_path / "output" / "model_final.pth")
    found = load_checkpoint_classifier(path, "cpu").probabilities(IMAGES)
    state = {k.removeprefix("module."): v for k, v in read_checkpoint(path)["ema"].items() if k != "n_averaged"}
    model = build_model(tiny_cfg)
    model.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(found, model.eval().logits(IMAGES).softmax(1))


def test_the_contract_overrides_the_config_text(tiny_cfg, save, checkpoint):
    other = copy.deepcopy(checkpoint["imgcls"]["preprocessing"])
    other.update(format="RGB", pixel_mean=[1.0, 2.0, 3.0], input_size=48, crop_pct=1.0)
    classifier = load_checkpoint_classifier(save(preprocessing=other), "cpu")
    assert classifier.model.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert (classifier.info.input_size, classifier.info.crop_pct) == (48, 1.0)
    assert classifier.info.contract["format"] == "RGB"


def test_nothing_is_downloaded_or_compiled(tiny_cfg, save):
    tiny_cfg.MODEL.WEIGHTS, tiny_cfg.MODEL.TIMM.PRETRAINED = "https://nowhere.invalid/weights.pth", True
    tiny_cfg.MODEL.COMPILE, tiny_cfg.MODEL.DEVICE = True, "cuda"
    assert load_checkpoint_classifier(save(cfg=tiny_cfg.dump()), "cpu").info.device == "cpu"


def test_a_checkpoint_of_another_version(save, checkpoint):
    """Unknown keys of training change nothing; unknown keys of the network could, and are refused."""
    text = checkpoint["imgcls"]["cfg"]
    later = text.replace("SOLVER:\n", "SOLVER:\n  NEW_KEY: 3\n")
    assert later != text
    expected = load_checkpoint_classifier(save(), "cpu").probabilities(IMAGES)
    found = load_checkpoint_classifier(save(cfg=later, version="99.0"), "cpu").probabilities(IMAGES)
    assert torch.equal(found, expected)
    network = text.replace("  MNET:\n", "  MNET:\n    SQUEEZE: true\n")
    with pytest.raises(UserError, match=r"does not know its MODEL\.MNET\.SQUEEZE; it was written by imgcls 99\.0 and"):
        load_checkpoint_classifier(save(cfg=network, version="99.0"), "cpu")
    foreign = text.replace("build_mnetv1_backbone", "build_unknown_backbone")
    with pytest.raises(UserError, match=r"cannot be built here \(.*build_unknown_backbone.*imgcls 99\.0"):
        load_checkpoint_classifier(save(cfg=foreign, version="99.0"), "cpu")
    with pytest.raises(UserError, match="entry has no preprocessing; it was written by"):
        load_checkpoint_classifier(save(preprocessing=None), "cpu")


def test_tensors_that_do_not_fit_are_refused(save, checkpoint):
    del checkpoint["model"]["head.linear.bias"]
    with pytest.raises(UserError, match=r"do not fit the network of its own config \(head\.linear\.bias is missing"):
        load_checkpoint_classifier(save(), "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, cfg: c.pop("imgcls"), r"no 'imgcls' entry"),
        (lambda c, cfg: c.update(imgcls=build_detector_info(cfg)), "is a detector's checkpoint, which has no classes"),
        (
            lambda c, cfg: c.update(model={k: v for k, v in c["model"].items() if not k.startswith("head.")}),
            "is a backbone's checkpoint",
        ),
    ],
)
def test_other_checkpoints_are_refused(tiny_cfg, tmp_path, checkpoint, change, message):
    path = str(tmp_path / "other.pth")
    change(checkpoint, tiny_cfg)
    write_checkpoint(path, checkpoint)
    with pytest.raises(UserError, match=message) as error:
        load_checkpoint_classifier(path, "cpu")
    assert "\n" not in str(error.value)


def test_files_that_are_no_checkpoint_are_refused(tmp_path, save):
    with pytest.raises(UserFileNotFoundError, match="no such checkpoint"):
        load_checkpoint_classifier(str(tmp_path / "nothing.pth"), "cpu")
    (tmp_path / "text.pth").write_text(json.dumps({"a": math.pi}))
    with pytest.raises(UserError, match="truncated or not a checkpoint"):
        load_checkpoint_classifier(str(tmp_path / "text.pth"), "cpu")


@pytest.mark.parametrize("device", ["cuda:99", "cude", "meta:x"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(UserError, match=f"device '{device}' is not available on this machine; allowed: cpu") as error:
        choose_device(device)
    assert "\n" not in str(error.value)


def test_without_a_name_the_gpu_or_else_the_cpu_is_taken():
    assert choose_device(None) == ("cuda" if torch.cuda.is_available() else "cpu") and choose_device("cpu") == "cpu"
