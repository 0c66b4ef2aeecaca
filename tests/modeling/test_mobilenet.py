from itertools import combinations

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone

from imgcls.config import get_cfg
from imgcls.modeling import ClsHead, mobilenet_v1, mobilenet_v2
from imgcls.modeling.blocks import ConvStyle

STAGES = ("stem", "mob2", "mob3", "mob4", "mob5")
SUBSETS = [subset for size in (1, 2, 5) for subset in combinations(STAGES, size)]
SHALLOW = {mobilenet_v1: [1, 1, 1, 1, 1], mobilenet_v2: [1, 1, 1, 1, 1, 1, 1]}

both = pytest.mark.parametrize("make", [mobilenet_v1, mobilenet_v2])


def assert_declared_shapes_are_real(net, size=(65, 50)):
    """Declared channels, and side lengths divided by the declared stride and rounded up."""
    features = net(torch.rand(1, 3, *size))
    declared = net.output_shape()
    assert list(features) == list(declared)
    for name, feature in features.items():
        stride = declared[name].stride
        assert feature.shape == (1, declared[name].channels, -(-size[0] // stride), -(-size[1] // stride))


@both
@pytest.mark.parametrize("out_features", SUBSETS, ids="-".join)
def test_output_shape_for_every_subset(make, out_features):
    net = make(width_mult=0.25, blocks=SHALLOW[make], out_features=out_features).eval()
    assert tuple(net.output_shape()) == out_features
    assert_declared_shapes_are_real(net)
    assert list(net.stages)[-1] == out_features[-1]


@both
@pytest.mark.parametrize("width", [0.1, 0.25, 0.5, 0.75, 1.0, 1.3])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_output_shape_for_every_width_and_stem(make, width, stem_stride):
    net = make(width_mult=width, blocks=SHALLOW[make], stem_stride=stem_stride, out_features=STAGES).eval()
    assert_declared_shapes_are_real(net)
    assert [shape.stride for shape in net.output_shape().values()] == [s * stem_stride // 2 for s in (2, 4, 8, 16, 32)]


@both
@pytest.mark.parametrize("depth", [0.1, 0.5, 1.0, 1.5])
def test_output_shape_for_every_depth(make, depth):
    net = make(width_mult=0.25, depth_mult=depth, out_features=STAGES).eval()
    assert_declared_shapes_are_real(net)


def test_depth_multiplier_rounds_blocks_up_and_keeps_one():
    def blocks(depth_mult):
        net = mobilenet_v1(width_mult=0.25, depth_mult=depth_mult)
        return [len(net.stages[name]) for name in STAGES[1:]]

    assert blocks(1.0) == [3, 2, 6, 2]
    assert blocks(0.5) == [2, 1, 3, 1]  # rows [1, 2, 2, 6, 2] to [1, 1, 1, 3, 1]
    assert blocks(0.01) == [2, 1, 1, 1]
    assert blocks(1.5) == [5, 3, 9, 3]


def test_blocks_replace_the_table():
    net = mobilenet_v1(width_mult=0.25, blocks=[1, 2, 2, 1, 2])
    assert [len(net.stages[name]) for name in STAGES[1:]] == [3, 2, 1, 2]


@both
def test_every_parameter_gets_a_gradient(make):
    net = make(width_mult=0.25, blocks=SHALLOW[make])
    net(torch.randn(2, 3, 64, 64))["mob5"].pow(2).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@both
@pytest.mark.parametrize("freeze_at", range(6))
def test_frozen_stages_keep_every_bit_in_training(make, freeze_at):
    net = make(width_mult=0.25, blocks=SHALLOW[make], freeze_at=freeze_at).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trainable = [p for p in net.parameters() if p.requires_grad]
    if trainable:
        optimizer = torch.optim.SGD(trainable, 0.1, momentum=0.9, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(2, 3, 64, 64))["mob5"].pow(2).mean().backward()
            optimizer.step()
    for key, value in net.state_dict().items():
        frozen = STAGES.index(key.split(".")[1]) < freeze_at
        assert torch.equal(value, before[key]) == frozen, key


def test_frozen_means_frozen_batch_norm_with_the_same_numbers():
    free, frozen = mobilenet_v1(width_mult=0.25).eval(), mobilenet_v1(width_mult=0.25, freeze_at=2).eval()
    frozen.load_state_dict(free.state_dict(), strict=False)
    assert isinstance(frozen.stages["stem"].norm, FrozenBatchNorm2d)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(free(x)["mob5"], frozen(x)["mob5"])


def test_norm_settings_reach_every_norm():
    net = mobilenet_v1(width_mult=0.25, style=ConvStyle(eps=1e-3, momentum=0.05))
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 27 and {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.05)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"out_features": ["res5"]}, r"OUT_FEATURES is \['res5'\]; allowed: one or more of"),
        ({"out_features": []}, r"OUT_FEATURES is \[\]"),
        ({"width_mult": 0}, "WIDTH_MULT is 0; allowed: a number above 0"),
        ({"depth_mult": -1}, "DEPTH_MULT is -1; allowed: a number above 0"),
        ({"blocks": [1, 2]}, r"BLOCKS is \[1, 2\]; allowed: \[\] or 5 integers"),
        ({"blocks": [1, 2, 0, 1, 1]}, "BLOCKS is"),
        ({"stem_stride": 4}, "STEM_STRIDE is 4; allowed: 1 or 2"),
        ({"freeze_at": 6}, "FREEZE_AT is 6; allowed: 0 .* to 5"),
        ({"freeze_at": 4, "out_features": ["mob3"]}, "FREEZE_AT is 4; .* last built stage is mob3"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ValueError, match=message):
        mobilenet_v1(**kwargs)


@pytest.mark.parametrize(
    ("name", "make"), [("build_mnetv1_backbone", mobilenet_v1), ("build_mnetv2_backbone", mobilenet_v2)]
)
def test_registered_builders_read_every_key(name, make):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = name, 2
    mnet = cfg.MODEL.MNET
    mnet.OUT_FEATURES, mnet.WIDTH_MULT, mnet.DEPTH_MULT, mnet.BLOCKS = ["mob3", "linear"], 0.5, 0.5, SHALLOW[make]
    mnet.STEM_STRIDE, mnet.ACTIVATION, mnet.BN_EPS, mnet.BN_MOMENTUM = 1, "leaky_relu", 1e-3, 0.2
    style = ConvStyle("leaky_relu", "BN", 1e-3, 0.2)
    expected = make(
        out_features=["mob3", "mob5"], width_mult=0.5, depth_mult=0.5, blocks=SHALLOW[make], stem_stride=1, style=style,
        freeze_at=2, in_channels=1,
    )  # fmt: skip
    assert str(build_backbone(cfg, ShapeSpec(channels=1))) == str(expected)


@pytest.mark.parametrize("width", [0.5, 1.4])
def test_v2_gives_torchvisions_logits_with_its_weights(width):
    """The weights are copied in order, which is the same in both networks."""
    theirs = torchvision.models.mobilenet_v2(width_mult=width).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    backbone = mobilenet_v2(width_mult=width).eval()
    head = ClsHead(backbone.output_shape()["mob5"], 1000, conv_dim=theirs.last_channel).eval()
    ours = {
        **{f"b.{k}": v for k, v in backbone.state_dict().items()},
        **{f"h.{k}": v for k, v in head.state_dict().items()},
    }
    source = theirs.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in source.values()]
    for target, value in zip(ours.values(), source.values(), strict=True):
        target.copy_(value)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(head(backbone(x)["mob5"]), theirs(x), atol=1e-5, rtol=1e-5)
