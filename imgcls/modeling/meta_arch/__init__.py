"""The classification meta-architecture, registered under detectron2's META_ARCH_REGISTRY."""

from .clsnet import ClsNet

__all__ = ["ClsNet"]
