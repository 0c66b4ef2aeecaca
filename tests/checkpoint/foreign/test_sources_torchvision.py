"""Random weights of torchvision's network, converted: the same logits and features from the same images."""

import pytest
import torch
import torchvision
from torch import nn

from imgcls.checkpoint import ClsCheckpointer, build_info
from imgcls.checkpoint.foreign import convert


def by_imagenet(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def vision_features(net, x):
    found = []
    for index, layer in enumerate(net.features):
        x = layer(x)
        found += [x] if index in (3, 6, 13, 17) else []
    return found


@pytest.fixture
def vision(raw, settle):
    net = torchvision.models.mobilenet_v2(num_classes=10)
    return settle(net, by_imagenet(raw))


def test_same_network(raw, vision, check_same, check_complete):
    converted = convert("torchvision", {"model": vision.state_dict()})
    check_complete(vision.state_dict(), converted)
    cfg = check_same(vision, lambda x: vision_features(vision, x), by_imagenet, converted, raw)
    assert cfg.MODEL.CLSNET.HEAD_CONV_DIM == 1280 and cfg.MODEL.CLSNET.NUM_CLASSES == 10
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "RGB" and contract["resize"] == "bilinear, antialiased"
    assert contract["pixel_mean"] == [123.675, 116.28, 103.53] and contract["pixel_std"] == [58.395, 57.12, 57.375]


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_other_widths(raw, settle, check_same, width):
    net = settle(torchvision.models.mobilenet_v2(num_classes=10, width_mult=width), by_imagenet(raw))
    converted = convert("torchvision", {"model": net.state_dict()})
    cfg = check_same(net, lambda x: vision_features(net, x), by_imagenet, converted, raw)
    assert width == cfg.MODEL.MNET.WIDTH_MULT


def test_our_checkpointer_loads_it(vision, build, tmp_path):
    converted = convert("torchvision", {"model": vision.state_dict()})
    torch.save(converted, tmp_path / "converted.pth")
    model, cfg = build(converted)
    nn.init.zeros_(model.head.linear.weight)
    ClsCheckpointer(model, "", info=build_info(cfg)).load(str(tmp_path / "converted.pth"))
    assert torch.equal(model.head.linear.weight, vision.classifier[1].weight)
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT RGB there, BGR in the config"):
        ClsCheckpointer(model, "", info=build_info(cfg)).load(str(tmp_path / "converted.pth"))
