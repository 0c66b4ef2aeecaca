"""timm's MobileNetV1: ``mobilenetv1_100``, ``mobilenetv1_125`` and other widths."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .names import LINEAR, STEM, V1_BLOCKS, conv_norm
from .recipe import Recipe, count_outputs, read_width

# timm numbers its blocks by the row of the paper's table and the place in it.
_ROWS = (1, 2, 2, 6, 2)


def read_recipe(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """What timm's weights are, as far as they say; the rest is timm's ``pretrained_cfg`` of these models."""
    modules = conv_norm("conv_stem", "bn1", STEM) | {"classifier": LINEAR}
    places = [f"blocks.{row}.{index}" for row, count in enumerate(_ROWS) for index in range(count)]
    for there, ours in zip(places, V1_BLOCKS, strict=True):
        modules |= conv_norm(f"{there}.conv_dw", f"{there}.bn1", f"{ours}.depthwise")
        modules |= conv_norm(f"{there}.conv_pw", f"{there}.bn2", f"{ours}.pointwise")
    width = read_width(state, "blocks.4.1.conv_pw.weight", 1024)
    return Recipe(
        expected="weights of timm's mobilenetv1_100, mobilenetv1_125 or another width",
        origin=f"timm's MobileNetV1, width {width}",
        modules=modules,
        version=1,
        width_mult=width,
        num_classes=count_outputs(state, "classifier.weight", 1000),
        pixel_mean=[127.5, 127.5, 127.5],
        pixel_std=[127.5, 127.5, 127.5],
        crop_pct=0.9 if width == 1.25 else 0.875,
        resize="bicubic, antialiased",
    )
