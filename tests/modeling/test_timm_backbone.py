import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, build_backbone

from imgcls.checkpoint import build_contract, write_checkpoint
from imgcls.config import get_cfg
from imgcls.modeling.timm_backbone import TimmBackbone

FAMILIES = ["test_resnet", "mobilenetv1_100", "mobilenetv3_small_050", "test_convnext", "test_mambaout", "test_vit"]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_timms_own_with_the_same_weights(name):
    """Every bit is equal, in channels-first order; names are timm's, and declared shapes match."""
    ours = TimmBackbone(name).eval()
    names = [row["module"] for row in timm.create_model(name, features_only=True).feature_info.info]
    theirs = timm.create_model(name, features_only=True, out_indices=tuple(range(len(names)))).eval()
    theirs.load_state_dict(ours.net.state_dict())
    x = torch.randn(2, 3, 160, 160)
    features, expected = ours(x), theirs(x)
    assert list(features) == list(ours.output_shape()) == names
    for shape, feature, other in zip(ours.output_shape().values(), features.values(), expected, strict=True):
        channels_first = other.permute(0, 3, 1, 2) if name == "test_mambaout" else other
        assert torch.equal(feature, channels_first)
        assert feature.shape == (2, shape.channels, 160 // shape.stride, 160 // shape.stride)


def test_building_changes_no_statistics_and_leaves_training_mode_on():
    """Building includes a forward pass that shows what each feature is computed from."""
    net = TimmBackbone("test_resnet", freeze_at=1)
    assert all(module.training for module in net.modules())
    buffers = dict(net.named_buffers())
    assert {float(value.sum()) for name, value in buffers.items() if name.endswith(("mean", "tracked"))} == {0.0}
    assert all((value == 1).all() for name, value in buffers.items() if name.endswith("var"))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_resnet", "test_vit"])
def test_saved_and_loaded_features_are_the_same_bits(name, tmp_path):
    first, second = TimmBackbone(name).eval(), TimmBackbone(name).eval()
    torch.save(first.state_dict(), tmp_path / "backbone.pth")
    x = torch.randn(1, 3, 64, 64)
    expected = first(x)
    assert not any(torch.equal(feature, expected[key]) for key, feature in second(x).items())
    second.load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True))
    for key, feature in second(x).items():
        assert torch.equal(feature, expected[key])


@pytest.mark.parametrize(
    ("name", "in_features"),
    [
        ("test_resnet", ["layer2", "layer3", "layer4"]),
        ("mobilenetv3_small_050", ["blocks.1", "blocks.3", "blocks.5"]),
        ("test_mambaout", ["stages.1", "stages.2", "stages.3"]),
    ],
)
def test_under_an_fpn(name, in_features):
    fpn = FPN(TimmBackbone(name, in_features, freeze_at=2), in_features=in_features, out_channels=32).train()
    levels = fpn(torch.randn(2, 3, 64, 96))
    assert {key: tuple(level.shape) for key, level in levels.items()} == {
        "p3": (2, 32, 8, 12), "p4": (2, 32, 4, 6), "p5": (2, 32, 2, 3)
    }  # fmt: skip
    sum(level.square().sum() for level in levels.values()).backward()
    assert [key for key, p in fpn.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_transformer_accepts_any_size_that_its_patches_divide():
    net = TimmBackbone("test_vit", ["blocks.1"]).eval()
    assert net(torch.randn(1, 3, 48, 80))["blocks.1"].shape == (1, 64, 3, 5)
    assert net.size_divisibility == 16
    assert TimmBackbone("test_resnet", ["layer1"]).size_divisibility == 0
    with pytest.raises(ValueError, match=r"'test_vit' does not accept images of 50x80 pixels: .*INPUT_SIZE"):
        net(torch.randn(1, 3, 50, 80))


def test_builder_reads_every_key():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_timm_backbone", 1
    cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.OUT_FEATURES = "test_resnet", ["layer2", "layer1"]
    expected = TimmBackbone("test_resnet", ["layer1", "layer2"], in_channels=1, freeze_at=1)
    net = build_backbone(cfg, ShapeSpec(channels=1))
    assert str(net) == str(expected) and net.output_shape() == expected.output_shape()
    assert net.net.conv1[0].in_channels == 1


def test_a_detector_is_checked_against_the_weights_that_it_will_get(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_backbone", "test_resnet"
    tensors = TimmBackbone("test_resnet").state_dict()
    about = {"cfg": cfg.dump(), "preprocessing": build_contract(cfg)}
    cfg.MODEL.WEIGHTS = str(tmp_path / "backbone.pth")
    write_checkpoint(cfg.MODEL.WEIGHTS, {"model": tensors, "imgcls": about})
    build_backbone(cfg)
    cfg.MODEL.TIMM.NAME = "test_byobnet"
    with pytest.raises(ValueError, match="does not fit the model's backbone"):
        build_backbone(cfg)


def test_pretrained_weights_need_their_own_preprocessing(monkeypatch):
    requested = []
    create = timm.create_model

    def without_download(name, **kwargs):
        requested.append(kwargs.pop("pretrained", False))
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.PRETRAINED = "build_timm_backbone", "test_resnet", True
    lines = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": "[127.5, 127.5, 127.5]",
        "MODEL.PIXEL_STD": "[127.5, 127.5, 127.5]",
    }
    with pytest.raises(ValueError, match="timm's test_resnet does not fit the config") as raised:
        build_backbone(cfg)
    for key, value in lines.items():
        assert f'{key} "{value}"' in str(raised.value)
        cfg.merge_from_list([key, value])
    requested.clear()
    build_backbone(cfg)
    assert requested[-1] is True
    cfg.MODEL.TIMM.PRETRAINED = False
    requested.clear()
    build_backbone(cfg)
    assert not any(requested)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("test_resnet", {"out_features": ["res5"]}, r"MODEL\.TIMM\.OUT_FEATURES is \['res5'\]; allowed: .*'layer4'\]"),
        ("test_resnet", {"freeze_at": 6}, r"FREEZE_AT is 6; allowed: 0 \(nothing\) to 5 \(1 is act1, .* is layer4\)"),
        ("test_resnet", {"freeze_at": -1}, r"FREEZE_AT is -1; allowed: 0"),
        ("test_resnet", {"freeze_at": 3, "out_features": ["layer1"]}, r"FREEZE_AT is 3; allowed: .* to 2 .* is layer1"),
    ],
)
def test_refusals(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, **kwargs)


def test_features_that_are_not_maps_are_refused(monkeypatch):
    create = timm.create_model

    def flat(name, **kwargs):
        net = create(name, **kwargs)
        net.register_forward_hook(lambda module, args, maps: [feature.flatten(2) for feature in maps])
        return net

    monkeypatch.setattr(timm, "create_model", flat)
    with pytest.raises(ValueError, match=r"whose feature act1 is \(1, 32, 6400\); allowed: .*\(N, 32, H, W\)"):
        TimmBackbone("test_resnet")
