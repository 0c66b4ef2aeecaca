"""What is frozen, left out or trained of timm's networks, whose modules have other names in each family."""

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.modeling.timm_backbone import TimmBackbone

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


def test_it_can_be_built_without_gradients():
    with torch.no_grad():
        net = TimmBackbone("test_resnet", freeze_at=1)
    assert {key.split(".")[1] for key, p in net.named_parameters() if not p.requires_grad} == {"conv1"}


def test_what_no_feature_needs_is_not_trained():
    """HRNet builds all scales at once: a parameter that the only scale asked for does not need gets no gradient."""
    net = TimmBackbone("hrnet_w18_small", ["stage1"])
    net(torch.randn(2, 3, 64, 64))["stage1"].sum().backward()
    assert {p.requires_grad for key, p in net.named_parameters() if key.startswith("net.incre_modules.3.")} == {False}
    assert [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_norm_that_cannot_be_frozen_is_refused():
    with pytest.raises(ValueError, match=r"FREEZE_AT includes .* of MODEL\.TIMM\.NAME 'levit_128s', a BatchNorm1d"):
        TimmBackbone("levit_128s", freeze_at=1)
