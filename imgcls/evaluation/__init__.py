"""Metrics of classification and detectron2 evaluators that are exact on any number of processes."""

from imgcls.evaluation.multilabel import MultiLabelEvaluator
from imgcls.evaluation.single_label import ImageNetEvaluator

__all__ = ["ImageNetEvaluator", "MultiLabelEvaluator"]
