"""MobileNet backbones, registered under detectron2's BACKBONE_REGISTRY."""

from .mobilenet import MobileNet
from .mobilenet_v1 import build_mnetv1_backbone, mobilenet_v1
from .mobilenet_v2 import build_mnetv2_backbone, mobilenet_v2

__all__ = ["MobileNet", "build_mnetv1_backbone", "build_mnetv2_backbone", "mobilenet_v1", "mobilenet_v2"]
