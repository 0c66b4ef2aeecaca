"""torchvision's ``mobilenet_v2``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .names import HEAD_CONV, LINEAR, STEM, V2_BLOCKS, block, conv_norm
from .recipe import Recipe, count_outputs, read_width

_FIRST = (("conv.0.0", "conv.0.1"), ("conv.1", "conv.2"))
_OTHERS = (("conv.0.0", "conv.0.1"), ("conv.1.0", "conv.1.1"), ("conv.2", "conv.3"))


def read_recipe(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """What torchvision's weights are; means and deviations are those of all its ImageNet classifiers."""
    modules = conv_norm("features.0.0", "features.0.1", STEM)
    for index, ours in enumerate(V2_BLOCKS, start=1):
        modules |= block(f"features.{index}", _FIRST if index == 1 else _OTHERS, ours)
    modules |= conv_norm("features.18.0", "features.18.1", HEAD_CONV) | {"classifier.1": LINEAR}
    width = read_width(state, "features.17.conv.2.weight", 320)
    return Recipe(
        expected="weights of torchvision's mobilenet_v2",
        origin=f"torchvision's mobilenet_v2, width {width}",
        modules=modules,
        version=2,
        width_mult=width,
        num_classes=count_outputs(state, "classifier.1.weight", 1000),
        head_conv_dim=count_outputs(state, "features.18.0.weight", 1280),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
