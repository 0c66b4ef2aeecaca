"""Other projects' MobileNetV1: the same network under other names, in files that do not say how they were trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign.recipe import LINEAR, STEM, V1_BLOCKS, Recipe, conv_norm, count_outputs, read_width

# The parts of biubug6's face detector beside its backbone, and the buffers of its export.
_DETECTOR = ("fpn.", "ssh1.", "ssh2.", "ssh3.", "ClassHead.", "BboxHead.", "LandmarkHead.")
_BIUBUG6_BLOCKS = [f"stage{stage}.{index}" for stage, start, end in ((1, 1, 6), (2, 0, 6), (3, 0, 2))
                   for index in range(start, end)]  # fmt: skip
_PYTORCHCV_UNITS = (1, 2, 2, 6, 2)  # units of its stages, the rows of the paper's table


def read_biubug6(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes the MobileNetV1 of biubug6's RetinaFace, alone or as ``body`` of the trained face detector."""
    is_detector = any(name.startswith("body.") for name in state)
    prefix = "body." if is_detector else ""
    return _describe(
        state,
        "biubug6's RetinaFace",
        stem=(f"{prefix}stage1.0.0", f"{prefix}stage1.0.1"),
        blocks=[prefix + name for name in _BIUBUG6_BLOCKS],
        parts=("0", "1", "3", "4"),
        linear="fc",
        extra=_DETECTOR if is_detector else (),
        known="its code has leaky_relu"
        + (", and prepares images as BGR with means 104 117 123 and deviations 1 1 1" if is_detector else ""),
    )


def read_marvis(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes the MobileNetV1 of marvis' pytorch-mobilenet, from which much other code was copied."""
    return _describe(
        state,
        "marvis' pytorch-mobilenet",
        stem=("model.0.0", "model.0.1"),
        blocks=[f"model.{index}" for index in range(1, 14)],
        parts=("0", "1", "3", "4"),
        linear="fc",
        known="its own code has relu (copies also relu6), RGB, means 123.675 116.28 103.53 and deviations "
        "58.395 57.12 57.375",
    )


def read_pytorchcv(state: Mapping[str, Tensor], _checkpoint: Mapping[str, Any]) -> Recipe:
    """Describes pytorchcv's mobilenet_w1, mobilenet_w3d4, mobilenet_wd2 and mobilenet_wd4."""
    rows = enumerate(_PYTORCHCV_UNITS, start=1)
    return _describe(
        state,
        "pytorchcv's MobileNet",
        stem=("features.init_block.conv", "features.init_block.bn"),
        blocks=[f"features.stage{row}.unit{unit}" for row, count in rows for unit in range(1, count + 1)],
        parts=("dw_conv.conv", "dw_conv.bn", "pw_conv.conv", "pw_conv.bn"),
        linear="output",
        known="its own code has relu, RGB, means 123.675 116.28 103.53 and deviations 58.395 57.12 57.375",
    )


def _describe(
    state: Mapping[str, Tensor],
    project: str,
    *,
    stem: tuple[str, str],
    blocks: Sequence[str],
    parts: tuple[str, str, str, str],
    linear: str,
    extra: Sequence[str] = (),
    known: str,
) -> Recipe:
    """Describes a MobileNetV1 with the paper's rows; a file without classifier gives a backbone.

    Args:
        state: tensors by name.
        project: name of the project.
        stem: names of the first convolution and its norm.
        blocks: names of the 13 blocks.
        parts: names in a block: depthwise convolution, its norm, pointwise convolution, its norm.
        linear: name of the classifier.
        extra: see ``Recipe``.
        known: see ``Recipe``.
    """
    depthwise, norm_1, pointwise, norm_2 = parts
    modules = conv_norm(*stem, STEM)
    for there, ours in zip(blocks, V1_BLOCKS, strict=True):
        modules |= conv_norm(f"{there}.{depthwise}", f"{there}.{norm_1}", f"{ours}.depthwise")
        modules |= conv_norm(f"{there}.{pointwise}", f"{there}.{norm_2}", f"{ours}.pointwise")
    has_head = any(name.startswith(f"{linear}.") for name in state)
    width = read_width(state, f"{blocks[-1]}.{pointwise}.weight", 1024)
    return Recipe(
        expected=f"the MobileNetV1 of {project}, with the paper's blocks and its channels in multiples of 8",
        origin=f"the MobileNetV1 of {project}, width {width}",
        modules=modules | ({linear: LINEAR} if has_head else {}),
        version=1,
        width_mult=width,
        num_classes=count_outputs(state, f"{linear}.weight", 1000) if has_head else -1,
        activation=None,
        pixel_format=None,
        pixel_mean=None,
        pixel_std=None,
        extra=extra,
        known=known,
    )
