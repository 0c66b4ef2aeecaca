"""Metrics of single-label and multi-label classification as functions of tensors."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multilabel_average_precision,
    multilabel_exact_match,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)


def topk_accuracy(pred_classes: Tensor, labels: Tensor, k: int) -> Tensor:
    """Computes the share of images whose true class is among the k best.

    torchmetrics needs the scores of all classes for this; here the indices of the k best are enough.

    Args:
        pred_classes: ``(N, >= k)`` class indices, best first.
        labels: ``(N,)`` class indices.
        k: how many of the best count.

    Returns:
        A percentage, 0 to 100; float64, scalar.
    """
    hits = (pred_classes[:, :k] == labels[:, None]).any(dim=1)
    return 100.0 * hits.double().mean()


def confusion_matrix(pred: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (true, predicted) pairs.

    Args:
        pred: ``(N,)`` class indices.
        labels: ``(N,)`` class indices.
        num_classes: K.

    Returns:
        ``(K, K)`` int64; rows are true classes, columns predicted ones.
    """
    # torchmetrics' own validation refuses a single class and sorts all values; the evaluator has checked them already.
    return multiclass_confusion_matrix(pred, labels, num_classes, validate_args=False)


def per_class_accuracy(matrix: Tensor) -> Tensor:
    """Computes the share of each class's images that are classified correctly.

    Args:
        matrix: ``(K, K)`` counts, rows are true classes.

    Returns:
        ``(K,)`` float64, 0 to 100; NaN for a class without images.
    """
    return 100.0 * matrix.diagonal().double() / matrix.sum(dim=1, dtype=torch.float64)


_AT_THRESHOLD: dict[str, Callable[..., Tensor]] = {
    "precision": multilabel_precision,
    "recall": multilabel_recall,
    "F1": multilabel_f1_score,
}


class PerClass(NamedTuple):
    """Metrics of each class.

    Attributes:
        positives: ``(K,)`` int64, number of images that have the class.
        metrics: ``AP``, ``precision``, ``recall``, ``F1``: ``(K,)`` float, 0 to 100; NaN for a class
            without positives, for which none of them is defined.
    """

    positives: Tensor
    metrics: dict[str, Tensor]


def per_class_metrics(probs: Tensor, labels: Tensor, threshold: float = 0.5) -> PerClass:
    """Computes average precision, and precision, recall and F1 at a threshold, of each class.

    Args:
        probs: ``(N, K)`` float in [0, 1].
        labels: ``(N, K)`` multi-hot, an integer type.
        threshold: a class is predicted where its probability is above it.
    """
    num_classes = labels.shape[1]
    positives = labels.sum(dim=0, dtype=torch.int64)
    present = positives > 0
    metrics = {name: torch.full((num_classes,), torch.nan) for name in ("AP", *_AT_THRESHOLD)}
    count = int(present.sum())
    if count == 0:
        return PerClass(positives, metrics)
    if count < num_classes:
        probs, labels = probs[:, present], labels[:, present]
    metrics["AP"][present] = 100 * multilabel_average_precision(probs, labels, count, "none", validate_args=False)
    for name, function in _AT_THRESHOLD.items():
        metrics[name][present] = 100 * function(probs, labels, count, threshold, "none", validate_args=False)
    return PerClass(positives, metrics)


def summary(probs: Tensor, labels: Tensor, per_class: PerClass, threshold: float = 0.5) -> OrderedDict[str, float]:
    """Computes the metrics of the whole dataset.

    Args:
        probs: ``(N, K)`` float in [0, 1].
        labels: ``(N, K)`` multi-hot, an integer type.
        per_class: result of :func:`per_class_metrics` for the same tensors.
        threshold: a class is predicted where its probability is above it.

    Returns:
        Percentages, 0 to 100. ``mAP`` and ``*_macro`` are means over the classes that have positives;
        ``*_micro`` pool the decisions of all classes; ``exact_match`` is the share of images whose whole
        label set is right. All but ``exact_match`` are NaN where no class has positives.
    """
    count = labels.shape[1]
    result = OrderedDict(mAP=per_class.metrics["AP"].nanmean().item())
    micro = {"mAP_micro": multilabel_average_precision(probs, labels, count, "micro", validate_args=False)}
    for name, function in _AT_THRESHOLD.items():
        micro[f"{name}_micro"] = function(probs, labels, count, threshold, "micro", validate_args=False)
    any_positive = bool(per_class.positives.any())
    result |= {name: 100 * value.item() if any_positive else torch.nan for name, value in micro.items()}
    result |= {f"{name}_macro": per_class.metrics[name].nanmean().item() for name in _AT_THRESHOLD}
    result["exact_match"] = 100 * multilabel_exact_match(probs, labels, count, threshold, validate_args=False).item()
    return result
