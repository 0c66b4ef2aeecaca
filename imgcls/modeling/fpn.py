"""Feature pyramids (Lin et al., arXiv 1612.03144) on our backbones, for detectron2's detectors."""

import itertools
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from imgcls.errors import UserError
from imgcls.modeling.mobilenet import build_mnetv1_backbone, build_mnetv2_backbone
from imgcls.modeling.timm_backbone import build_timm_backbone


@BACKBONE_REGISTRY.register()
def build_mnetv1_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on MobileNetV1 for Faster and Mask R-CNN; max pooling adds the level p6."""
    return build_fpn(cfg, build_mnetv1_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_mnetv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on MobileNetV2 for Faster and Mask R-CNN; max pooling adds the level p6."""
    return build_fpn(cfg, build_mnetv2_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on a timm network for Faster and Mask R-CNN; max pooling adds the level p6."""
    return build_fpn(cfg, build_timm_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_retinanet_mnetv1_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on MobileNetV1 for RetinaNet; convolutions add the levels p6 and p7."""
    return build_retinanet_fpn(cfg, build_mnetv1_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_retinanet_mnetv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on MobileNetV2 for RetinaNet; convolutions add the levels p6 and p7."""
    return build_retinanet_fpn(cfg, build_mnetv2_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Builds an FPN on a timm network for RetinaNet; convolutions add the levels p6 and p7."""
    return build_retinanet_fpn(cfg, build_timm_backbone(cfg, input_shape))


def build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None = None) -> FPN:
    """Builds the FPN of ``MODEL.FPN`` on any backbone; ``top_block`` adds the coarser levels, by default max pooling.

    Raises:
        UserError: ``MODEL.FPN.IN_FEATURES`` names features that the backbone does not have, or skips a level.
    """
    names = cfg.MODEL.FPN.IN_FEATURES
    _check(names, bottom_up)
    return FPN(
        bottom_up,
        in_features=names,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block or LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_retinanet_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Builds the FPN of ``MODEL.FPN`` with RetinaNet's two extra levels, from the last feature of the backbone."""
    names = cfg.MODEL.FPN.IN_FEATURES
    _check(names, bottom_up)
    last = bottom_up.output_shape()[names[-1]]
    return build_fpn(cfg, bottom_up, LastLevelP6P7(last.channels, cfg.MODEL.FPN.OUT_CHANNELS, names[-1]))


def _check(names: Sequence[str], bottom_up: Backbone) -> None:
    shapes = bottom_up.output_shape()
    unknown = [name for name in names if name not in shapes]
    if unknown or not names:
        raise UserError(
            f"MODEL.FPN.IN_FEATURES is {list(names)}; the backbone gives {list(shapes)}: "
            "choose among these, or add the missing ones to MODEL.MNET.OUT_FEATURES (MODEL.TIMM.OUT_FEATURES)"
        )
    strides = [shapes[name].stride for name in names]
    if any(after != 2 * before for before, after in itertools.pairwise(strides)):
        raise UserError(
            f"MODEL.FPN.IN_FEATURES is {list(names)}, with strides {strides}; "
            "an FPN needs features in order, each with twice the stride of the previous one"
        )
