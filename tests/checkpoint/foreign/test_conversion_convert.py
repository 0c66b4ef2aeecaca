"""What is no file of the source is refused, by the names of the tensors that do not fit."""

import logging

import pytest
import torch
import torchvision

from imgcls.checkpoint.foreign import convert


@pytest.fixture
def vision():
    return torchvision.models.mobilenet_v2(num_classes=10)


def test_nothing_is_drawn_logged_or_changed(vision, caplog):
    """It builds the network only for its shapes."""
    state = vision.state_dict()
    names, random = list(state), torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        convert("torchvision", {"model": state})
    assert list(state) == names and torch.equal(torch.get_rng_state(), random) and caplog.records == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.18.1.running_var"), r"1 missing \(features\.18\.1\.running_var\)$"),
        (lambda s: s.pop("features.17.conv.2.weight"), r"1 missing \(features\.17\.conv\.2\.weight\)$"),
        (lambda s: s.pop("classifier.1.weight"), r"1 missing \(classifier\.1\.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown \(extra\)$"),
        (
            lambda s: s.update({"module.classifier.1.bias": torch.zeros(10)}),
            r"1 unknown \(module\.classifier\.1\.b",
        ),
        (lambda s: s.update({"features.0.0.bias": torch.zeros(32)}), r"1 unknown \(features\.0\.0\.bias\)$"),
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
def test_every_tensor_counts(vision, change, message):
    state = dict(vision.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message) as raised:
        convert("torchvision", {"model": state})
    assert str(raised.value).startswith("not weights of torchvision's mobilenet_v2: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["timm", "torchvision", "upstream"])
def test_another_network(source):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(
        ValueError, match=r"^not .*: \d+ missing \(\S+, \S+, \.\.\.\); \d+ unknown \(conv1\.weight, "
    ) as raised:
        convert(source, {"model": state})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_an_empty_file():
    with pytest.raises(ValueError, match=r"not weights of timm's mobilenetv1_100.*: 137 missing"):
        convert("timm", {"model": {}})


def test_an_unknown_source():
    with pytest.raises(ValueError, match="source is 'keras'; allowed: timm, torchvision, upstream"):
        convert("keras", {"model": {}})
