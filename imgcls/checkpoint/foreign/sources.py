"""Names of the modules of our classifiers, and the pairs of names that other projects have for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign.recipe import Recipe, count_outputs, read_width
from imgcls.errors import UserError

STEM = "backbone.stages.stem"
HEAD_CONV = "head.conv"
LINEAR = "head.linear"


def _blocks(*counts: int) -> tuple[str, ...]:
    stages = zip(("mob2", "mob3", "mob4", "mob5"), counts, strict=True)
    return tuple(f"backbone.stages.{stage}.{index}" for stage, count in stages for index in range(count))


V1_BLOCKS = _blocks(3, 2, 6, 2)
V2_BLOCKS = _blocks(3, 3, 7, 4)


def conv_norm(conv: str, norm: str, ours: str) -> dict[str, str]:
    """A convolution and its norm, which here is inside the convolution."""
    return {conv: ours, norm: f"{ours}.norm"}


def block(source: str, pairs: Sequence[tuple[str, str]], ours: str) -> dict[str, str]:
    """A block of MobileNetV2: its convolutions with their norms in order, the first of three is the expansion."""
    parts = ("expand", "depthwise", "project")[-len(pairs) :]
    names: dict[str, str] = {}
    for (conv, norm), part in zip(pairs, parts, strict=True):
        names |= conv_norm(f"{source}.{conv}", f"{source}.{norm}", f"{ours}.{part}")
    return names


# timm numbers its blocks by the row of the paper's table and the place in it.
_ROWS = (1, 2, 2, 6, 2)


def read_timm(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
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


_TORCHVISION_FIRST = (("conv.0.0", "conv.0.1"), ("conv.1", "conv.2"))
_TORCHVISION_OTHERS = (("conv.0.0", "conv.0.1"), ("conv.1.0", "conv.1.1"), ("conv.2", "conv.3"))


def read_torchvision(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """What torchvision's weights are; means and deviations are those of all its ImageNet classifiers."""
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


def is_upstream(state: Iterable[str]) -> bool:
    """Whether a state dict is a classifier of the 2020 project, with or without DDP's ``"module."``."""
    return any(name.removeprefix("module.") == "bottom_up.stem.0.weight" for name in state)


def read_2020_project(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> Recipe:
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
        **_images(state, checkpoint, f"the 2020 project's MobileNetV{version}, width {width}"),
    )


def _images(state: Mapping[str, Tensor], checkpoint: Mapping[str, Any], net: str) -> dict[str, Any]:
    """The images that the trainer fed. Only ``train_net.py`` writes ``"best_acc1"`` or leaves DDP's prefix."""
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
        raise UserError(f"not of colour images, which alone can be converted: {name} has {len(values)} values, not 3")
    return values
