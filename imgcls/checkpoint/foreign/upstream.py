"""Checkpoints of the 2020 project, tkianai/ImageClassification.detectron2."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from imgcls.errors import UserError

from .names import LINEAR, STEM, V1_BLOCKS, V2_BLOCKS, block, conv_norm
from .recipe import Recipe, count_outputs, read_width

_FIRST = (("conv.0", "conv.1"), ("conv.3", "conv.4"))
_OTHERS = (*_FIRST, ("conv.6", "conv.7"))
_MEAN = [103.53, 116.28, 123.675]


def is_upstream(state: Iterable[str]) -> bool:
    """Whether a state dict is a classifier of the 2020 project, with or without DDP's ``"module."``."""
    return any(name.removeprefix("module.") == "bottom_up.stem.0.weight" for name in state)


def read_recipe(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> Recipe:
    """What the file is; V1 and V2 are told apart by their names, the two trainers by what they wrote."""
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
        # Its channels are int(channels * width), ours the nearest multiple of 8.
        expected=f"a MobileNetV{version} classifier of the 2020 project, its channels in multiples of 8",
        modules=modules,
        version=version,
        width_mult=width,
        num_classes=count_outputs(state, "bottom_up.linear.weight", 1000),
        activation="leaky_relu" if version == 1 else "relu6",
        beside=("pixel_mean", "pixel_std"),
        **_pictures(state, checkpoint, f"the 2020 project's MobileNetV{version}, width {width}"),
    )


def _pictures(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any], net: str) -> dict[str, Any]:
    """The pictures that the trainer fed. Only ``train_net.py`` writes ``"best_acc1"`` or leaves DDP's prefix."""
    if "best_acc1" in checkpoint or any(name.startswith("module.") for name in checkpoint["model"]):
        # Its Normalize(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0]) follows ToTensor, which gives RGB in
        # [0, 1]: x / 255 - mean is (x - 255 * mean) / 255. The model's own pixel_mean was not used.
        return {
            "origin": f"{net}, by its train_net.py: RGB in [0, 1] minus {_MEAN}",
            "pixel_mean": [round(255 * mean, 3) for mean in _MEAN],
            "pixel_std": [255.0, 255.0, 255.0],
        }
    # Its mapper resizes to a square of INPUT_SIZE, without a crop; channels are in detectron2's default order.
    return {
        "origin": f"{net}, by its train_net_builtin.py: BGR",
        "pixel_format": "BGR",
        "pixel_mean": _read_buffer(state, "pixel_mean", _MEAN),
        "pixel_std": _read_buffer(state, "pixel_std", [1.0, 1.0, 1.0]),
        "crop_pct": 1.0,
        "resize": "bilinear, antialiased, to a square",
    }


def _read_buffer(state: Mapping[str, Tensor], name: str, default: list[float]) -> list[float]:
    """The model's buffer, which has the values of the config it was trained with, in the digits these had."""
    if name not in state:
        return default
    values = [round(value, 4) for value in state[name].flatten().tolist()]
    if len(values) != 3:
        raise UserError(f"not of colour pictures, which alone can be converted: {name} has {len(values)} values, not 3")
    return values
