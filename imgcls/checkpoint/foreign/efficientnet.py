"""EfficientNet-Lite0 with the names of lukemelas' EfficientNet-PyTorch, for timm's network of the same function."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign.recipe import HEAD_CONV, LINEAR, Recipe, conv_norm, count_outputs

_NETWORK = """\
  BACKBONE:
    NAME: "build_timm_backbone"
    FREEZE_AT: 0
  TIMM:
    NAME: "tf_efficientnet_lite0"
    OUT_FEATURES: ["blocks.6"]
  MNET: # of the head's convolution
    ACTIVATION: "{activation}"
    NORM: "BN"
    BN_EPS: 0.001"""
_ROWS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each row of the paper's table (arXiv 1905.11946, table 1)
# timm's names in a block without and with expansion: convolution and norm, in the order of the source's.
_FIRST = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
_OTHERS = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
_PARTS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


def read_efficientnet_lite0(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes EfficientNet-Lite0; its preprocessing is that of Google's code, from which the weights come."""
    backbone = "backbone.net"
    modules = {"_conv_stem": f"{backbone}.conv_stem", "_bn0": f"{backbone}.bn1"}
    blocks = [f"{backbone}.blocks.{row}.{index}" for row, count in enumerate(_ROWS) for index in range(count)]
    for number, ours in enumerate(blocks):
        pairs = _OTHERS if number else _FIRST
        for (conv, norm), (our_conv, our_norm) in zip(_PARTS[-len(pairs) :], pairs, strict=True):
            modules |= {
                f"_blocks.{number}.{conv}": f"{ours}.{our_conv}",
                f"_blocks.{number}.{norm}": f"{ours}.{our_norm}",
            }
    modules |= conv_norm("_conv_head", "_bn1", HEAD_CONV) | {"_fc": LINEAR}
    return Recipe(
        expected="EfficientNet-Lite0 with the names of EfficientNet-PyTorch",
        origin="EfficientNet-Lite0 of EfficientNet-PyTorch",
        modules=modules,
        version=0,
        width_mult=1.0,
        num_classes=count_outputs(state, "_fc.weight", 1000),
        head_conv_dim=1280,
        pixel_mean=[127.0, 127.0, 127.0],
        pixel_std=[128.0, 128.0, 128.0],
        resize="bicubic, antialiased",
        network=_NETWORK,
        feature="blocks.6",
    )
