import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import _make_divisible

from imgcls.config.check import ACTIVATIONS
from imgcls.modeling.blocks import ConvStyle, DepthwiseSeparable, InvertedResidual, conv_norm, scale_channels


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
def test_channels_are_the_papers_at_the_papers_widths(width):
    for channels in (32, 64, 128, 256, 512, 1024):
        assert scale_channels(channels, width) == channels * width


def test_channels_are_torchvisions_at_any_width():
    for channels in (16, 24, 32, 64, 96, 160, 320):
        for percent in range(5, 200, 5):
            assert scale_channels(channels, percent / 100) == _make_divisible(channels * percent / 100, 8)


def test_conv_norm_is_convolution_norm_activation():
    conv = conv_norm(3, 8, ConvStyle(eps=1e-3, momentum=0.01), kernel_size=3, stride=2).eval()
    conv.norm.running_mean.normal_()
    conv.norm.running_var.uniform_(0.5, 2)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6()).eval()
    plain[0].weight.data = conv.weight.data
    plain[1].load_state_dict(conv.norm.state_dict())
    x = torch.randn(2, 3, 9, 7) * 5
    torch.testing.assert_close(conv(x), plain(x))
    assert conv.norm.momentum == 0.01


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_seven"), [("relu6", 0, 6), ("relu", 0, 7), ("leaky_relu", -0.1, 7)]
)
def test_activations(name, at_minus_one, at_seven):
    out = ConvStyle(activation=name).make_activation()(torch.tensor([-1.0, 7.0]))
    assert out.tolist() == pytest.approx([at_minus_one, at_seven])


def test_the_config_check_allows_the_same_activations():
    for name in ACTIVATIONS:
        ConvStyle(activation=name).make_activation()
    with pytest.raises(ValueError) as raised:
        ConvStyle(activation="gelu").make_activation()
    assert str(raised.value).endswith(str(list(ACTIVATIONS)))


def test_unknown_activation_and_norm_are_named():
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.ACTIVATION is 'gelu'; allowed"):
        conv_norm(3, 8, ConvStyle(activation="gelu"))
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.NORM is 'Norm'"):
        conv_norm(3, 8, ConvStyle(norm="Norm"))
    with pytest.raises(ValueError, match=r'MODEL\.MNET\.NORM is ""'):
        conv_norm(3, 8, ConvStyle(norm=""))
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.NORM is 'GN', which cannot normalise 8 channels"):
        conv_norm(3, 8, ConvStyle(norm="GN"))


def test_depthwise_separable_keeps_its_channels_apart():
    """Only the pointwise half mixes channels: if it is the identity, an input channel changes one output channel."""
    block = DepthwiseSeparable(4, 4, 1, ConvStyle(activation="leaky_relu")).eval()
    block.pointwise.weight.data = torch.eye(4)[:, :, None, None]
    x = torch.rand(1, 4, 5, 5)
    moved = x.clone()
    moved[:, 2] += 1
    changed = (block(x) != block(moved)).flatten(2).any(2)[0]
    assert changed.tolist()[:2] == [False, False] and not changed[3]


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "added"), [(8, 8, 1, True), (8, 16, 1, False), (8, 8, 2, False)]
)
def test_inverted_residual_adds_its_input_where_the_shapes_agree(in_channels, out_channels, stride, added):
    block = InvertedResidual(in_channels, out_channels, stride, ConvStyle(), expansion=6).eval()
    nn.init.zeros_(block.project.weight)
    x = torch.randn(1, in_channels, 6, 6)
    out = block(x)
    assert torch.equal(out, x) if added else not out.any()
