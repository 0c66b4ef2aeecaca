import sys

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, build_backbone, build_model

from imgcls.checkpoint import build_contract, write_checkpoint
from imgcls.config import get_cfg
from imgcls.modeling.backbone.timm_backbone import TimmBackbone

# For each network its features, and beside each what is computed from the one before it, stem included.
STAGES = {
    "resnet18": {
        "act1": "conv1 bn1", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3", "layer4": "layer4"
    },
    "mobilenetv1_100": {
        "blocks.0": "conv_stem bn1 blocks.0", "blocks.1": "blocks.1", "blocks.2": "blocks.2", "blocks.3": "blocks.3",
        "blocks.4": "blocks.4",
    },
    "mobilenetv3_small_050": {
        "bn1": "conv_stem bn1", "blocks.0": "blocks.0", "blocks.1": "blocks.1", "blocks.3": "blocks.2 blocks.3",
        "blocks.5": "blocks.4 blocks.5",
    },
    "convnext_atto": {
        "stages.0": "stem_0 stem_1 stages_0", "stages.1": "stages_1", "stages.2": "stages_2", "stages.3": "stages_3"
    },
    "test_mambaout": {
        "stages.0": "stem stages_0", "stages.1": "stages_1", "stages.2": "stages_2", "stages.3": "stages_3"
    },
    "test_vit": {
        "blocks.0": "model.pos_embed model.cls_token model.patch_embed model.norm_pre model.blocks.0",
        **{f"blocks.{i}": f"model.blocks.{i}" for i in range(1, 6)},
    },
}  # fmt: skip

families = pytest.mark.parametrize("name", STAGES)


def frozen_parts(name, freeze_at):
    parts = [part for own in list(STAGES[name].values())[:freeze_at] for part in own.split()]
    return tuple(f"net.{part}." for part in parts)


def is_in(key, parts):
    return f"{key}.".startswith(parts) if parts else False


@families
def test_features_are_timms_own_with_the_same_weights(name):
    """Bit by bit, in channels first; declared shapes are the real ones."""
    ours = TimmBackbone(name).eval()
    count = len(STAGES[name])
    theirs = timm.create_model(name, features_only=True, out_indices=tuple(range(count))).eval()
    theirs.load_state_dict(ours.net.state_dict())
    x = torch.randn(2, 3, 160, 160)
    features, expected = ours(x), theirs(x)
    assert list(features) == list(ours.output_shape()) == list(STAGES[name])
    for shape, feature, other in zip(ours.output_shape().values(), features.values(), expected, strict=True):
        channels_first = other.permute(0, 3, 1, 2) if name == "test_mambaout" else other
        assert torch.equal(feature, channels_first)
        assert feature.shape == (2, shape.channels, 160 // shape.stride, 160 // shape.stride)


@families
@pytest.mark.parametrize("freeze_at", [0, 2, "all"])
def test_frozen_part_keeps_every_bit_in_training(name, freeze_at):
    """It is exactly the part up to the k-th feature; all behind it learns, and its statistics move."""
    freeze_at = len(STAGES[name]) if freeze_at == "all" else freeze_at
    last = list(STAGES[name])[-1]
    net = TimmBackbone(name, [last], freeze_at=freeze_at).train()
    parts = frozen_parts(name, freeze_at)
    assert {key for key, p in net.named_parameters() if not p.requires_grad} == {
        key for key, _ in net.named_parameters() if is_in(key, parts)
    }
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trainable = [p for p in net.parameters() if p.requires_grad]
    assert bool(trainable) == (freeze_at < len(STAGES[name]))
    for _ in range(2 if trainable else 0):
        net.zero_grad()
        out = net(torch.randn(2, 3, 64, 64))[last]
        (out * torch.randn_like(out)).sum().backward()
        assert all(p.grad is not None for p in trainable)
        with torch.no_grad():
            for p in trainable:
                p += 0.01 * torch.randn_like(p)
    if not trainable:
        net(torch.randn(2, 3, 64, 64))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == is_in(key, parts), key


def test_it_can_be_built_without_gradients():
    with torch.no_grad():
        net = TimmBackbone("test_resnet", freeze_at=1)
    assert {key.split(".")[1] for key, p in net.named_parameters() if not p.requires_grad} == {"conv1"}


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv1_100", "mobilenetv3_small_050"])
def test_frozen_norms_keep_their_activation(name):
    """detectron2's converter would drop the activation that is part of timm's norms."""
    free, frozen = TimmBackbone(name), TimmBackbone(name, freeze_at=5)
    with torch.no_grad():
        free(torch.randn(4, 3, 64, 64) * 2 + 1)  # statistics of something
    frozen.load_state_dict(free.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for expected, feature in zip(free.eval()(x).values(), frozen.train()(x).values(), strict=True):
        torch.testing.assert_close(feature, expected)


@families
def test_later_features_are_not_built_and_the_rest_is_the_same(name):
    feature = list(STAGES[name])[1]
    part, whole = TimmBackbone(name, [feature]).eval(), TimmBackbone(name).eval()
    built = {key for key in whole.state_dict() if is_in(key, frozen_parts(name, 2))}
    assert set(part.state_dict()) == built
    whole.load_state_dict(part.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    features = part(x)
    assert list(features) == list(part.output_shape()) == [feature]
    assert torch.equal(features[feature], whole(x)[feature])


def test_what_no_feature_needs_is_not_trained():
    """HRNet builds all scales at once: a parameter that the only scale asked for does not need gets no gradient."""
    net = TimmBackbone("hrnet_w18_small", ["stage1"])
    net(torch.randn(2, 3, 64, 64))["stage1"].sum().backward()
    assert {p.requires_grad for key, p in net.named_parameters() if key.startswith("net.incre_modules.3.")} == {False}
    assert [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_features_without_a_name_are_left_out_and_names_are_made_unique():
    assert list(TimmBackbone("tresnet_m").output_shape()) == [f"body.layer{i}" for i in (1, 2, 3, 4)]
    shapes = TimmBackbone("crossvit_9_240").output_shape()
    assert list(shapes) == ["blocks.0.0", "blocks.1.1", "blocks.2.2", "blocks.0.3", "blocks.1.4", "blocks.2.5"]
    assert [shape.channels for shape in shapes.values()] == [128, 128, 128, 256, 256, 256]


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
        ("resnet18", ["layer2", "layer3", "layer4"]),
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


def test_a_transformer_takes_any_size_that_its_patches_divide():
    net = TimmBackbone("vit_tiny_patch16_224", ["blocks.1"]).eval()
    assert net(torch.randn(1, 3, 48, 80))["blocks.1"].shape == (1, 192, 3, 5)
    assert net.size_divisibility == 16
    assert TimmBackbone("resnet18", ["layer1"]).size_divisibility == 0
    with pytest.raises(
        ValueError, match=r"'vit_tiny_patch16_224' does not take pictures of 50x80 pixels: .*INPUT_SIZE"
    ):
        net(torch.randn(1, 3, 50, 80))


def test_the_classifier_trains_a_step_on_it(tiny_cfg):
    cfg = tiny_cfg
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_timm_backbone", 2
    cfg.MODEL.TIMM.NAME, cfg.MODEL.CLSNET.IN_FEATURES = "mobilenetv3_small_050", ["blocks.5"]
    net = build_model(cfg).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trainable = {key: p for key, p in net.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), 0.1, weight_decay=0.1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    net({"image": images, "label": torch.tensor([0, 1, 2, 0])})["loss_cls"].backward()
    optimizer.step()
    assert [key for key, p in trainable.items() if p.grad is None] == []
    frozen = tuple(f"backbone.{part}" for part in frozen_parts(cfg.MODEL.TIMM.NAME, 2))
    unchanged = {key for key, value in net.state_dict().items() if torch.equal(value, before[key])}
    assert unchanged >= {key for key in before if is_in(key, frozen)}
    assert not unchanged & {key for key in trainable if key.endswith("weight")}


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
    asked = []
    create = timm.create_model

    def without_download(name, **kwargs):
        asked.append(kwargs.pop("pretrained", False))
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.PRETRAINED = "build_timm_backbone", "resnet18", True
    lines = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": "[123.675, 116.28, 103.53]",
        "MODEL.PIXEL_STD": "[58.395, 57.12, 57.375]",
    }
    with pytest.raises(ValueError, match="timm's resnet18 was trained on other preprocessing") as raised:
        build_backbone(cfg)
    for key, value in lines.items():
        assert f'{key} "{value}"' in str(raised.value)
        cfg.merge_from_list([key, value])
    asked.clear()
    build_backbone(cfg)
    assert asked[-1] is True
    cfg.MODEL.TIMM.PRETRAINED = False
    asked.clear()
    build_backbone(cfg)
    assert not any(asked)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("", {}, r"MODEL\.TIMM\.NAME is ''; allowed: one of timm\.list_models\(\)"),
        ("resnet_18", {}, r"MODEL\.TIMM\.NAME is 'resnet_18'; did you mean .*resnet18"),
        ("resnet18.no_such_weights", {}, r"MODEL\.TIMM\.NAME is 'resnet18\.no_such_weights'"),
        ("hf-hub:timm/resnet18", {}, r"MODEL\.TIMM\.NAME is 'hf-hub:timm/resnet18'"),
        ("test_resnet", {"out_features": ["res5"]}, r"MODEL\.TIMM\.OUT_FEATURES is \['res5'\]; allowed: .*'layer4'\]"),
        ("test_resnet", {"freeze_at": 6}, r"FREEZE_AT is 6; allowed: 0 \(nothing\) to 5 \(1 is act1, .* is layer4\)"),
        ("test_resnet", {"freeze_at": -1}, r"FREEZE_AT is -1; allowed: 0"),
        ("test_resnet", {"freeze_at": 3, "out_features": ["layer1"]}, r"FREEZE_AT is 3; allowed: .* to 2 .* is layer1"),
        ("test_mambaout", {"pretrained": True}, r"PRETRAINED is True, and timm has no weights of test_mambaout"),
    ],
)
def test_refusals(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, **kwargs)


def test_a_norm_that_cannot_be_frozen_is_refused():
    with pytest.raises(ValueError, match=r"FREEZE_AT includes .* of MODEL\.TIMM\.NAME 'levit_128s', a BatchNorm1d"):
        TimmBackbone("levit_128s", freeze_at=1)


def test_networks_without_feature_maps_are_refused(monkeypatch):
    create = timm.create_model

    def flat(name, **kwargs):
        net = create(name, **kwargs)
        net.register_forward_hook(lambda module, args, maps: [feature.flatten(2) for feature in maps])
        return net

    monkeypatch.setattr(timm, "create_model", flat)
    with pytest.raises(ValueError, match=r"whose feature act1 is \(1, 32, 6400\); allowed: .*\(N, 32, H, W\)"):
        TimmBackbone("test_resnet")

    def refuse(name, **kwargs):
        raise RuntimeError("features_only not implemented for this")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        ValueError, match=r"NAME is 'test_resnet', which timm cannot build with features \(RuntimeError"
    ):
        TimmBackbone("test_resnet")


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'timm is not installed: pip install -e "\.\[timm\]"'):
        TimmBackbone("resnet18")
