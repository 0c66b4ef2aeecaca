"""Backbones, alone and under an FPN, registered under detectron2's BACKBONE_REGISTRY."""

from .fpn import (
    build_fpn,
    build_mnetv1_fpn_backbone,
    build_mnetv2_fpn_backbone,
    build_retinanet_fpn,
    build_retinanet_mnetv1_fpn_backbone,
    build_retinanet_mnetv2_fpn_backbone,
    build_retinanet_timm_fpn_backbone,
    build_timm_fpn_backbone,
)
from .mobilenet import MobileNet
from .mobilenet_v1 import build_mnetv1_backbone, mobilenet_v1
from .mobilenet_v2 import build_mnetv2_backbone, mobilenet_v2
from .timm_backbone import TimmBackbone, build_timm_backbone

__all__ = [
    "MobileNet",
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
