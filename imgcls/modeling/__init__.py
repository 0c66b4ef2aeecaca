"""Backbones, head, losses and the classification meta-architecture."""

from imgcls.modeling.clsnet import ClsNet
from imgcls.modeling.fpn import (
    build_fpn,
    build_mnetv1_fpn_backbone,
    build_mnetv2_fpn_backbone,
    build_retinanet_fpn,
    build_retinanet_mnetv1_fpn_backbone,
    build_retinanet_mnetv2_fpn_backbone,
    build_retinanet_timm_fpn_backbone,
    build_timm_fpn_backbone,
)
from imgcls.modeling.head import ClsHead
from imgcls.modeling.losses import SigmoidLoss, SoftmaxLoss
from imgcls.modeling.mobilenet import (
    MobileNet,
    build_mnetv1_backbone,
    build_mnetv2_backbone,
    mobilenet_v1,
    mobilenet_v2,
)
from imgcls.modeling.timm_backbone import TimmBackbone, build_timm_backbone

__all__ = [
    "ClsHead",
    "ClsNet",
    "MobileNet",
    "SigmoidLoss",
    "SoftmaxLoss",
    "TimmBackbone",
    "build_fpn",
    "build_mnetv1_backbone",
    "build_mnetv1_fpn_backbone",
    "build_mnetv2_backbone",
    "build_mnetv2_fpn_backbone",
    "build_retinanet_fpn",
    "build_retinanet_mnetv1_fpn_backbone",
    "build_retinanet_mnetv2_fpn_backbone",
    "build_retinanet_timm_fpn_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "mobilenet_v1",
    "mobilenet_v2",
]
