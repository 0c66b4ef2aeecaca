"""The networks of other projects that can be converted: their names, config and preprocessing."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign.recipe import (
    HEAD_CONV,
    LINEAR,
    STEM,
    V1_BLOCKS,
    V2_BLOCKS,
    Recipe,
    block,
    conv_norm,
    count_outputs,
    read_width,
)
from imgcls.errors import UserError

# timm numbers blocks by their row in the paper's table and their position in that row.
_ROWS = (1, 2, 2, 6, 2)


def read_timm(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes timm's MobileNetV1; preprocessing, which weights do not show, is from timm's ``pretrained_cfg``."""
    modules = conv_norm("conv_stem", "bn1", STEM) | {"classifier": LINEAR}
    # timm numbers blocks by their row in the paper's table and their position in that row.
    blocks = [f"blocks.{row}.{index}" for row, count in enumerate((1, 2, 2, 6, 2)) for index in range(count)]
    for there, ours in zip(blocks, V1_BLOCKS, strict=True):
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


_TORCHVISION_FIRST = (("conv.0.0", "conv.0.1"), ("conv.1", "conv.2"))
_TORCHVISION_OTHERS = (("conv.0.0", "conv.0.1"), ("conv.1.0", "conv.1.1"), ("conv.2", "conv.3"))


def read_torchvision(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes torchvision's MobileNetV2; mean and deviation are those of all its ImageNet classifiers."""
    modules = conv_norm("features.0.0", "features.0.1", STEM)
    for index, ours in enumerate(V2_BLOCKS, start=1):
        modules |= block(f"features.{index}", _TORCHVISION_FIRST if index == 1 else _TORCHVISION_OTHERS, ours)
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


_FIRST = (("conv.0", "conv.1"), ("conv.3", "conv.4"))
_OTHERS = (*_FIRST, ("conv.6", "conv.7"))
_MEAN = [103.53, 116.28, 123.675]


def is_2020_project(state: Iterable[str]) -> bool:
    """Whether the names are those of a classifier of the 2020 project, with or without DDP's ``"module."``."""
    return any(name.removeprefix("module.") == "bottom_up.stem.0.weight" for name in state)


def read_2020_project(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes a file of the 2020 project; its names show the version, and its entries which trainer wrote it."""
    modules = conv_norm("bottom_up.stem.0", "bottom_up.stem.1", STEM) | {"bottom_up.linear": LINEAR}
    version = 2 if "bottom_up.features.0.conv.0.weight" in state else 1
    if version == 1:
        for index, ours in enumerate(V1_BLOCKS):
            there = f"bottom_up.features.{index}"
            modules |= conv_norm(f"{there}.0", f"{there}.1", f"{ours}.depthwise")
            modules |= conv_norm(f"{there}.3", f"{there}.4", f"{ours}.pointwise")
        width = read_width(state, "bottom_up.features.12.3.weight", 1024)
    else:
        for index, ours in enumerate(V2_BLOCKS):
            modules |= block(f"bottom_up.features.{index}", _OTHERS if index else _FIRST, ours)
        width = read_width(state, "bottom_up.features.16.conv.6.weight", 320)
    return Recipe(
        # Its channels are int(channels * width); ours are rounded to multiples of 8.
        expected=f"a MobileNetV{version} classifier of the 2020 project, its channels in multiples of 8",
        modules=modules,
        version=version,
        width_mult=width,
        num_classes=count_outputs(state, "bottom_up.linear.weight", 1000),
        activation="leaky_relu" if version == 1 else "relu6",
        extra=("pixel_mean", "pixel_std"),
        stated_by_file=True,
        **_read_preprocessing(state, checkpoint, f"the 2020 project's MobileNetV{version}, width {width}"),
    )


def _read_preprocessing(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any], net: str) -> dict[str, Any]:
    """Returns the preprocessing. Only its ``train_net.py`` writes ``"best_acc1"`` or leaves DDP's prefix."""
    if "best_acc1" in checkpoint or any(name.startswith("module.") for name in checkpoint["model"]):
        # Its Normalize(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0]) follows ToTensor, which gives RGB in
        # [0, 1]: x / 255 - mean is (x - 255 * mean) / 255. The model's own pixel_mean was not used.
        return {
            "origin": f"{net}, by its train_net.py: RGB in [0, 1] minus {_MEAN}",
            "pixel_mean": [round(255 * mean, 3) for mean in _MEAN],
            "pixel_std": [255.0, 255.0, 255.0],
        }
    # Its mapper resizes to a square of INPUT_SIZE without a crop, with channels in detectron2's default order.
    return {
        "origin": f"{net}, by its train_net_builtin.py: BGR",
        "pixel_format": "BGR",
        "pixel_mean": _read_buffer(state, "pixel_mean", _MEAN),
        "pixel_std": _read_buffer(state, "pixel_std", [1.0, 1.0, 1.0]),
        "crop_pct": 1.0,
        "resize": "bilinear, antialiased, to a square",
    }


def _read_buffer(state: Mapping[str, Tensor], name: str, default: list[float]) -> list[float]:
    """Returns a buffer of the model, which has the values of its config, without float32's rounding errors."""
    if name not in state:
        return default
    values = [round(value, 4) for value in state[name].flatten().tolist()]
    if len(values) != 3:
        raise UserError(
            f"not a network for colour images: {name} has {len(values)} values, not 3; others cannot be converted"
        )
    return values
