"""The building blocks of MobileNets: convolution + norm + activation, and the two separable blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from detectron2.layers import Conv2d, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from imgcls.errors import UserError

_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu6": nn.ReLU6,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),  # the slope of the 2020 project
}


@dataclass(frozen=True)
class ConvStyle:
    """Activation and norm of all convolutions of a network.

    Attributes:
        activation: ``"relu6"``, ``"relu"`` or ``"leaky_relu"``.
        norm: a name of detectron2's ``get_norm``.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics.
    """

    activation: str = "relu6"
    norm: str = "BN"
    eps: float = 1e-5
    momentum: float = 0.1

    def make_activation(self) -> nn.Module:
        """Creates an activation module that works in place."""
        if self.activation not in _ACTIVATIONS:
            raise UserError(f"MODEL.MNET.ACTIVATION is {self.activation!r}; allowed: one of {list(_ACTIVATIONS)}")
        return _ACTIVATIONS[self.activation](inplace=True)

    def make_norm(self, channels: int) -> nn.Module:
        """Creates a norm module for ``channels`` channels."""
        try:
            norm = get_norm(self.norm, channels)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"MODEL.MNET.NORM is {self.norm!r}, which cannot normalise {channels} channels: {error}"
            ) from error
        if norm is None:
            raise UserError('MODEL.MNET.NORM is ""; the convolutions have no bias and need a norm, for example "BN"')
        norm.eps = self.eps
        if hasattr(norm, "momentum"):
            norm.momentum = self.momentum
        return norm


def conv_norm(
    in_channels: int,
    out_channels: int,
    style: ConvStyle,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> Conv2d:
    """Creates a convolution without bias, followed by a norm and, unless ``activate`` is off, an activation.

    ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
    """
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
        norm=style.make_norm(out_channels),
        activation=style.make_activation() if activate else None,
    )
    # As in detectron2's and torchvision's networks: He et al. (arXiv 1502.01852) by fan-out, not divided by groups.
    # Dividing makes depthwise filters so large that the usual learning rates hardly change their direction.
    c2_msra_fill(conv)
    return conv


class DepthwiseSeparable(nn.Sequential):
    """Block of MobileNetV1 (arXiv 1704.04861, table 1): depthwise 3x3, then pointwise 1x1, both activated.

    ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: ConvStyle):
        super().__init__()
        self.depthwise = conv_norm(in_channels, in_channels, style, 3, stride, groups=in_channels)
        self.pointwise = conv_norm(in_channels, out_channels, style)


class InvertedResidual(nn.Module):
    """Block of MobileNetV2 (arXiv 1801.04381, table 1): expand 1x1, depthwise 3x3, linear project 1x1.

    The input is added to the output where both have the same shape.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: ConvStyle, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        # The first row expands by 1; the paper's implementation and torchvision omit that convolution.
        self.expand = conv_norm(in_channels, hidden, style) if expansion != 1 else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, style, 3, stride, groups=hidden)
        self.project = conv_norm(hidden, out_channels, style, activate=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``."""
        out = self.project(self.depthwise(self.expand(x)))
        return torch.add(x, out) if self.residual else out


def scale_channels(channels: int, width_mult: float) -> int:
    """Rounds ``channels * width_mult`` to a multiple of 8, at least 8 and at least 90 % of the exact value.

    Gives the V1 paper's channels at 1, 0.75, 0.5 and 0.25.
    """
    wanted = channels * width_mult
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
