"""MobileNetV2 (Sandler et al., arXiv 1801.04381), without the last 1x1 convolution, which is the head's."""

from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from imgcls.checkpoint import build_checked

from .blocks import InvertedResidual
from .mobilenet import MobileNet, Row, build_mobilenet_kwargs

_expand_1 = partial(InvertedResidual, expansion=1)
_expand_6 = partial(InvertedResidual, expansion=6)

# Table 2 of the paper.
ROWS = (
    Row("mob2", 16, 1, 1, _expand_1),
    Row("mob2", 24, 2, 2, _expand_6),
    Row("mob3", 32, 3, 2, _expand_6),
    Row("mob4", 64, 4, 2, _expand_6),
    Row("mob4", 96, 3, 1, _expand_6),
    Row("mob5", 160, 3, 2, _expand_6),
    Row("mob5", 320, 1, 1, _expand_6),
)


def mobilenet_v2(**kwargs: Any) -> MobileNet:
    """MobileNetV2 from plain arguments; they are those of ``MobileNet`` without ``rows``."""
    return MobileNet(ROWS, **kwargs)


@BACKBONE_REGISTRY.register()
def build_mnetv2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNet:
    """MobileNetV2 from ``MODEL.MNET`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model."""
    return build_checked(cfg, mobilenet_v2(in_channels=input_shape.channels, **build_mobilenet_kwargs(cfg)))
