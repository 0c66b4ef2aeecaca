"""Backbones, head, losses and the classification meta-architecture."""

from .backbone import MobileNet, build_mnetv1_backbone, build_mnetv2_backbone
from .head import ClsHead
from .losses import SigmoidLoss, SoftmaxLoss
from .meta_arch import ClsNet

__all__ = [
    "ClsHead",
    "ClsNet",
    "MobileNet",
    "SigmoidLoss",
    "SoftmaxLoss",
    "build_mnetv1_backbone",
    "build_mnetv2_backbone",
]
