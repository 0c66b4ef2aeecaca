"""Metrics of classification and detectron2 evaluators that are exact on any number of processes."""

from imgcls.evaluation.imagenet import ImageNetEvaluator
from imgcls.evaluation.multilabel import MultiLabelEvaluator

__all__ = ["ImageNetEvaluator", "MultiLabelEvaluator"]
