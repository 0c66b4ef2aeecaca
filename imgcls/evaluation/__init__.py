"""Metrics of classification and detectron2 evaluators that are exact on any number of processes."""

from .imagenet import ImageNetEvaluator
from .multilabel import MultiLabelEvaluator

__all__ = ["ImageNetEvaluator", "MultiLabelEvaluator"]
