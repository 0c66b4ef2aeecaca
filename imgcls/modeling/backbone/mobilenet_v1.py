"""MobileNetV1 (Howard et al., arXiv 1704.04861)."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from imgcls.checkpoint import build_checked

from .blocks import DepthwiseSeparable
from .mobilenet import MobileNet, Row, build_mobilenet_kwargs

# Table 1 of the paper.
ROWS = (
    Row("mob2", 64, 1, 1, DepthwiseSeparable),
    Row("mob2", 128, 2, 2, DepthwiseSeparable),
    Row("mob3", 256, 2, 2, DepthwiseSeparable),
    Row("mob4", 512, 6, 2, DepthwiseSeparable),
    Row("mob5", 1024, 2, 2, DepthwiseSeparable),
)


def mobilenet_v1(**kwargs: Any) -> MobileNet:
    """MobileNetV1 from plain arguments; they are those of ``MobileNet`` without ``rows``."""
    return MobileNet(ROWS, **kwargs)


@BACKBONE_REGISTRY.register()
def build_mnetv1_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNet:
    """MobileNetV1 from ``MODEL.MNET`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model."""
    return build_checked(cfg, mobilenet_v1(in_channels=input_shape.channels, **build_mobilenet_kwargs(cfg)))
