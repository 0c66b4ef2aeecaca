"""Files that are not of the given source are refused with the names of the tensors that do not fit."""

import logging

import pytest
import timm
import torch
import torchvision
from torch.optim.swa_utils import AveragedModel

from imgcls.checkpoint.foreign import SOURCES, ForeignWeightsError, Stated, convert, plan_conversion, read_weights

STATED = Stated(pixel_format="RGB", pixel_mean=(100, 110, 120), pixel_std=(50, 60, 70), activation="relu")


@pytest.fixture
def vision():
    return torchvision.models.mobilenet_v2(num_classes=10)


def test_conversion_draws_logs_and_changes_nothing(vision, caplog):
    """The network is built for its shapes only."""
    state = vision.state_dict()
    names, random = list(state), torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        convert("torchvision", {"model": state})
    assert list(state) == names and torch.equal(torch.get_rng_state(), random) and caplog.records == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("features.18.1.running_var"),
            r"261/262 tensors fit; 1 missing \(features\.18\.1\.running_var \(1280,\)\)$",
        ),
        (
            lambda s: s.pop("features.17.conv.2.weight"),
            r"1 missing \(features\.17\.conv\.2\.weight \(320, 960, 1, 1\)\)$",
        ),
        (lambda s: s.pop("classifier.1.weight"), r"1 missing \(classifier\.1\.weight \(1000, 1280\)\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown \(extra \(1,\)\)$"),
        (
            lambda s: s.update({"module.classifier.1.bias": torch.zeros(10)}),
            r"1 unknown \(module\.classifier\.1\.b",
        ),
        (lambda s: s.update({"features.0.0.bias": torch.zeros(32)}), r"1 unknown \(features\.0\.0\.bias \(32,\)\)$"),
        (
            lambda s: s.update({"features.2.conv.1.0.weight": torch.zeros(96, 1, 5, 5)}),
            r"1 of another shape \(features\.2\.conv\.1\.0\.weight \(96, 1, 5, 5\) instead of \(96, 1, 3, 3\)\)$",
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.tensor(1.0)}),
            r"of another shape \(classifier\.1\.weight \(",
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.zeros(0, 1280)}),
            r"2 of another shape \(classifier\.1\.w",
        ),
    ],
)
def test_every_tensor_must_match(vision, change, message):
    state = dict(vision.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message) as raised:
        convert("torchvision", {"model": state})
    assert str(raised.value).startswith("not weights of torchvision's mobilenet_v2: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "auto"])
def test_another_network_is_refused(source):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(
        ValueError,
        match=r"^not .*: [01]/\d+ tensors fit; \d+ missing \(.+, .+, \.\.\.\); \d+ unknown \(conv1\.weight \(64, ",
    ) as raised:
        convert(source, {"model": state}, STATED)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_an_empty_file_is_refused():
    with pytest.raises(ValueError, match=r"not weights of timm's mobilenetv1_100.*: 0/137 tensors fit; 137 missing"):
        convert("timm", {"model": {}})


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match=f"source is 'keras'; allowed: {', '.join(SOURCES)}$"):
        convert("keras", {"model": {}})


def test_auto_knows_the_source(vision):
    plan = plan_conversion("auto", {"model": {f"module.{name}": value for name, value in vision.state_dict().items()}})
    assert plan.source == "torchvision"
    assert plan.summary() == (
        "262/262 tensors of torchvision's mobilenet_v2, width 1.0, converted; dropped: *.num_batches_tracked (52)"
    )
    assert len(plan.tensors) == 262 and len(plan.dropped) == 52
    assert plan_conversion("auto", {"model": timm.create_model("mobilenetv1_100").state_dict()}).source == "timm"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["conv1.weight", "bn1.weight", "fc.weight"],
            r"3 tensors \(conv1\.weight, bn1\.weight, \.\.\.\) of no known source",
        ),
        (["backbone.stages.stem.weight"], r"already a checkpoint of imgcls, which MODEL\.WEIGHTS takes as it is"),
    ],
)
def test_auto_refuses_what_it_does_not_know(names, message):
    with pytest.raises(ForeignWeightsError, match=message):
        convert("auto", {"model": {name: torch.zeros(1) for name in names}})


def test_statements_override_a_projects_preprocessing(vision):
    converted = convert("torchvision", {"model": vision.state_dict()}, Stated(pixel_mean=(100, 110, 120)))
    contract = converted["imgcls"]["preprocessing"]
    assert contract["pixel_mean"] == [100.0, 110.0, 120.0] and contract["pixel_std"] == [58.395, 57.12, 57.375]
    assert "PIXEL_MEAN: [100.0, 110.0, 120.0]" in converted["imgcls"]["cfg"]


def test_class_names_must_be_as_many_as_the_outputs(vision):
    names = [f"class {number}" for number in range(10)]
    assert convert("torchvision", {"model": vision.state_dict()}, classes=names)["imgcls"]["classes"] == names
    with pytest.raises(ValueError, match="there are names of 9 classes, and the network has 10 outputs"):
        convert("torchvision", {"model": vision.state_dict()}, classes=names[1:])


@pytest.mark.parametrize("name", ["mobilenet_1_0_224_tf.h5", "model.keras", "frozen.pb"])
def test_weights_of_tensorflow_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a file of Keras or TensorFlow, whose MobileNets pad .* PyTorch weights"):
        read_weights(str(tmp_path / name))


def average(model, layout):
    """The entries that the training scripts of timm and torchvision write for a moving average."""
    if layout == "state_dict_ema":
        return {layout: dict(model.state_dict())}
    return {layout: AveragedModel(model, use_buffers=True).state_dict()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("raw_name", "layout"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_averaged_weights_are_taken_unless_raw_ones_are_asked_for(vision, tmp_path, caplog, prefix, raw_name, layout):
    averaged = torchvision.models.mobilenet_v2(num_classes=10)
    path = str(tmp_path / "foreign.pth")
    raw = {f"{prefix}{key}": value for key, value in vision.state_dict().items()}
    torch.save({raw_name: raw, **average(averaged, layout), "epoch": 3}, path)

    converted = convert("torchvision", read_weights(path))["model"]
    assert torch.equal(converted["head.linear.weight"], averaged.classifier[1].weight)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{path}: using the averaged weights, {layout!r} and not {raw_name!r}; ")
    caplog.clear()
    converted = convert("torchvision", read_weights(path, raw=True))["model"]
    assert torch.equal(converted["head.linear.weight"], vision.classifier[1].weight) and not caplog.records


def test_an_empty_average_is_ignored(vision, tmp_path, caplog):
    torch.save({"state_dict": vision.state_dict(), "state_dict_ema": None}, tmp_path / "foreign.pth")
    converted = convert("torchvision", read_weights(str(tmp_path / "foreign.pth")))["model"]
    assert torch.equal(converted["head.linear.weight"], vision.classifier[1].weight) and not caplog.records
