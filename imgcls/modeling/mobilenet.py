"""MobileNetV1 and V2: one class that builds a stem and named stages from a table of rows, and the two tables."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from imgcls.checkpoint import build_checked
from imgcls.config.load import feature_names
from imgcls.errors import UserError
from imgcls.modeling.blocks import ConvStyle, DepthwiseSeparable, InvertedResidual, conv_norm, scale_channels

STAGES = ("stem", "mob2", "mob3", "mob4", "mob5")


class Row(NamedTuple):
    """One row of a paper's architecture table.

    Attributes:
        stage: name of the stage that the row belongs to.
        channels: output channels at width 1.
        blocks: number of blocks at depth 1; only the first one has the stride.
        stride: 1 or 2.
        make: ``make(in_channels, out_channels, stride, style)`` builds one block.
    """

    stage: str
    channels: int
    blocks: int
    stride: int
    make: Callable[[int, int, int, ConvStyle], nn.Module]


class MobileNet(Backbone):
    """A MobileNet without classifier; its features and their strides are stem 2, mob2 4, mob3 8, mob4 16, mob5 32.

    Args:
        rows: the architecture table.
        out_features: stages to return; later ones are not built.
        in_channels: channels of the image.
        width_mult: multiplies all channels (see ``scale_channels``).
        depth_mult: a row of n blocks gets ``ceil(n * depth_mult)`` blocks, at least 1.
        blocks: blocks per row instead of the table's; empty for the table's.
        stem_stride: 2, or 1 for small images, which halves all strides.
        style: activation and norm of all convolutions.
        freeze_at: 0 freezes nothing, 1 the stem, 2 stem and mob2, ... Parameters of frozen stages get no gradients
            and their norms become FrozenBN, so that training does not change a single bit of them.

    Raises:
        UserError: an unknown feature, ``blocks`` of the wrong length, ``freeze_at`` beyond the last stage, or a
            multiplier that is not above 0.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        out_features: Sequence[str] = ("mob5",),
        *,
        in_channels: int = 3,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        blocks: Sequence[int] = (),
        stem_stride: int = 2,
        style: ConvStyle | None = None,
        freeze_at: int = 0,
    ):
        super().__init__()
        style = style or ConvStyle()
        _check(rows, out_features, width_mult, depth_mult, blocks, stem_stride)
        built = STAGES[: max(STAGES.index(name) for name in out_features) + 1]
        self._out_features = [name for name in STAGES if name in out_features]
        channels, stride = scale_channels(32, width_mult), stem_stride
        stem = conv_norm(in_channels, channels, style, 3, stride)
        stages: dict[str, nn.Sequential] = {}
        self._out_feature_channels = {"stem": channels}
        self._out_feature_strides = {"stem": stride}
        for row, count in zip(rows, blocks or [row.blocks for row in rows], strict=True):
            if row.stage not in built:
                break
            stage = stages.setdefault(row.stage, nn.Sequential())
            # The small subtraction compensates for float rounding: 10 * 1.1 is 11.000000000000002.
            for index in range(max(1, math.ceil(count * depth_mult - 1e-9))):
                step = row.stride if index == 0 else 1
                out_channels = scale_channels(row.channels, width_mult)
                stage.append(row.make(channels, out_channels, step, style))
                channels, stride = out_channels, stride * step
            self._out_feature_channels[row.stage] = channels
            self._out_feature_strides[row.stage] = stride
        self.stages = nn.ModuleDict({"stem": stem, **stages})
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps normalised images ``(N, C, H, W)`` to ``{name: (N, channels, H / stride, W / stride)}``, rounded up."""
        features = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self._out_features:
                features[name] = x
        return features

    def freeze(self, freeze_at: int) -> "MobileNet":
        """Permanently freezes the first ``freeze_at`` of stem, mob2, mob3, mob4, mob5.

        Raises:
            UserError: ``freeze_at`` is beyond the last stage.
        """
        if not 0 <= freeze_at <= len(self.stages):
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; allowed: 0 (nothing) to {len(self.stages)} "
                f"(1 is stem, the last built stage is {list(self.stages)[-1]})"
            )
        for name in list(self.stages)[:freeze_at]:
            for parameter in self.stages[name].parameters():
                parameter.requires_grad = False
            self.stages[name] = FrozenBatchNorm2d.convert_frozen_batchnorm(self.stages[name])
        return self


def _build(rows: Sequence[Row], cfg: CfgNode, input_shape: ShapeSpec) -> MobileNet:
    mnet = cfg.MODEL.MNET
    backbone = MobileNet(
        rows,
        feature_names(mnet.OUT_FEATURES, "MODEL.MNET.OUT_FEATURES"),
        in_channels=input_shape.channels,
        width_mult=mnet.WIDTH_MULT,
        depth_mult=mnet.DEPTH_MULT,
        blocks=mnet.BLOCKS,
        stem_stride=mnet.STEM_STRIDE,
        style=ConvStyle(mnet.ACTIVATION, mnet.NORM, mnet.BN_EPS, mnet.BN_MOMENTUM),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    build_checked(cfg, backbone)
    return backbone


def _check(
    rows: Sequence[Row],
    out_features: Sequence[str],
    width_mult: float,
    depth_mult: float,
    blocks: Sequence[int],
    stem_stride: int,
) -> None:
    unknown = [name for name in out_features if name not in STAGES]
    if unknown or not out_features:
        raise UserError(f"MODEL.MNET.OUT_FEATURES is {list(out_features)}; allowed: one or more of {list(STAGES)}")
    for key, value in (("WIDTH_MULT", width_mult), ("DEPTH_MULT", depth_mult)):
        if not value > 0:
            raise UserError(f"MODEL.MNET.{key} is {value}; allowed: a number above 0")
    if blocks and (len(blocks) != len(rows) or min(blocks) < 1):
        raise UserError(
            f"MODEL.MNET.BLOCKS is {list(blocks)}; allowed: [] or {len(rows)} integers from 1, one for each row "
            f"of {[f'{row.channels} channels' for row in rows]}"
        )
    if stem_stride not in (1, 2):
        raise UserError(f"MODEL.MNET.STEM_STRIDE is {stem_stride}; allowed: 1 or 2")


# arXiv 1704.04861, table 1.
MOBILENET_V1 = (
    Row("mob2", 64, 1, 1, DepthwiseSeparable),
    Row("mob2", 128, 2, 2, DepthwiseSeparable),
    Row("mob3", 256, 2, 2, DepthwiseSeparable),
    Row("mob4", 512, 6, 2, DepthwiseSeparable),
    Row("mob5", 1024, 2, 2, DepthwiseSeparable),
)


def mobilenet_v1(**kwargs: Any) -> MobileNet:
    """Creates a MobileNetV1; takes the arguments of ``MobileNet`` except ``rows``."""
    return MobileNet(MOBILENET_V1, **kwargs)


@BACKBONE_REGISTRY.register()
def build_mnetv1_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNet:
    """Builds the MobileNetV1 of ``MODEL.MNET`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model."""
    return _build(MOBILENET_V1, cfg, input_shape)


_expand_1 = partial(InvertedResidual, expansion=1)
_expand_6 = partial(InvertedResidual, expansion=6)

# arXiv 1801.04381, table 2.
MOBILENET_V2 = (
    Row("mob2", 16, 1, 1, _expand_1),
    Row("mob2", 24, 2, 2, _expand_6),
    Row("mob3", 32, 3, 2, _expand_6),
    Row("mob4", 64, 4, 2, _expand_6),
    Row("mob4", 96, 3, 1, _expand_6),
    Row("mob5", 160, 3, 2, _expand_6),
    Row("mob5", 320, 1, 1, _expand_6),
)


def mobilenet_v2(**kwargs: Any) -> MobileNet:
    """Creates a MobileNetV2; takes the arguments of ``MobileNet`` except ``rows``."""
    return MobileNet(MOBILENET_V2, **kwargs)


@BACKBONE_REGISTRY.register()
def build_mnetv2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNet:
    """Builds the MobileNetV2 of ``MODEL.MNET`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model."""
    return _build(MOBILENET_V2, cfg, input_shape)
