"""Names, features, freezing and trimming of timm networks, whose modules have different names in each family."""

import sys

import pytest
import timm
import torch
from detectron2.modeling import build_model

from imgcls.modeling.timm_backbone import TimmBackbone
from imgcls.modeling.timm_network import check_name, find_features


def test_features_without_a_name_are_left_out_and_names_are_made_unique():
    assert find_features("tresnet_m", 3) == {f"body.layer{i}": i for i in (1, 2, 3, 4)}
    shapes = TimmBackbone("crossvit_9_240").output_shape()
    assert list(shapes) == ["blocks.0.0", "blocks.1.1", "blocks.2.2", "blocks.0.3", "blocks.1.4", "blocks.2.5"]
    assert [shape.channels for shape in shapes.values()] == [128, 128, 128, 256, 256, 256]


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_a_name_may_have_the_tag_of_its_weights(name):
    check_name(name, pretrained=True)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("", {}, r"MODEL\.TIMM\.NAME is ''; allowed: one of timm\.list_models\(\)"),
        ("resnet_18", {}, r"MODEL\.TIMM\.NAME is 'resnet_18'; did you mean .*resnet18"),
        ("resnet18.no_such_weights", {}, r"MODEL\.TIMM\.NAME is 'resnet18\.no_such_weights'"),
        ("hf-hub:timm/resnet18", {}, r"MODEL\.TIMM\.NAME is 'hf-hub:timm/resnet18'"),
        ("test_mambaout", {"pretrained": True}, r"PRETRAINED is True, and timm has no weights of test_mambaout"),
    ],
)
def test_unknown_names_and_weights_are_refused(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, **kwargs)


def test_a_network_without_features_is_refused(monkeypatch):
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


# For each network its features, and the modules between the previous feature (or the image) and that one.
STAGES = {
    "test_resnet": {
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
    "test_convnext": {
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


def is_part(key, parts):
    return f"{key}.".startswith(parts) if parts else False


@families
@pytest.mark.parametrize("freeze_at", [0, 2, "all"])
def test_frozen_part_keeps_every_bit_in_training(name, freeze_at):
    """Everything up to the k-th feature is frozen; everything after it learns, and its statistics change."""
    freeze_at = len(STAGES[name]) if freeze_at == "all" else freeze_at
    last = list(STAGES[name])[-1]
    net = TimmBackbone(name, [last], freeze_at=freeze_at).train()
    parts = frozen_parts(name, freeze_at)
    assert {key for key, p in net.named_parameters() if not p.requires_grad} == {
        key for key, _ in net.named_parameters() if is_part(key, parts)
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
        assert torch.equal(value, before[key]) == is_part(key, parts), key


@families
def test_later_features_are_not_built_and_the_rest_is_the_same(name):
    feature = list(STAGES[name])[1]
    part, whole = TimmBackbone(name, [feature]).eval(), TimmBackbone(name).eval()
    built = {key for key in whole.state_dict() if is_part(key, frozen_parts(name, 2))}
    assert set(part.state_dict()) == built
    whole.load_state_dict(part.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    features = part(x)
    assert list(features) == list(part.output_shape()) == [feature]
    assert torch.equal(features[feature], whole(x)[feature])


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
    assert unchanged >= {key for key in before if is_part(key, frozen)}
    assert not unchanged & {key for key in trainable if key.endswith("weight")}


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv1_100", "mobilenetv3_small_050"])
def test_frozen_norms_keep_their_activation(name):
    """detectron2's converter would drop the activation that timm's norms contain."""
    free, frozen = TimmBackbone(name), TimmBackbone(name, freeze_at=5)
    with torch.no_grad():
        free(torch.randn(4, 3, 64, 64) * 2 + 1)  # statistics other than 0 and 1
    frozen.load_state_dict(free.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for expected, feature in zip(free.eval()(x).values(), frozen.train()(x).values(), strict=True):
        torch.testing.assert_close(feature, expected)


def test_it_can_be_built_without_gradients():
    with torch.no_grad():
        net = TimmBackbone("test_resnet", freeze_at=1)
    assert {key.split(".")[1] for key, p in net.named_parameters() if not p.requires_grad} == {"conv1"}


def test_parameters_that_no_feature_needs_are_frozen():
    """HRNet builds all scales at once; those that the only requested scale does not need get no gradient."""
    net = TimmBackbone("hrnet_w18_small", ["stage1"])
    net(torch.randn(2, 3, 64, 64))["stage1"].sum().backward()
    assert {p.requires_grad for key, p in net.named_parameters() if key.startswith("net.incre_modules.3.")} == {False}
    assert [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_norm_that_cannot_be_frozen_is_refused():
    with pytest.raises(ValueError, match=r"FREEZE_AT includes .* of MODEL\.TIMM\.NAME 'levit_128s', a BatchNorm1d"):
        TimmBackbone("levit_128s", freeze_at=1)
