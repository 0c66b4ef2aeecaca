"""Metrics of single-label classification: tensors in, numbers out."""

from collections import OrderedDict
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
    """Share of images whose class is among the k best.

    torchmetrics counts top-k from the scores of all classes; from the k best indices it is this one line.

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
    """Counts of (true, predicted) pairs.

    Args:
        pred: ``(N,)`` class indices.
        labels: ``(N,)`` class indices.
        num_classes: K.

    Returns:
        ``(K, K)`` int64; rows are true classes, columns predicted ones.
    """
    # Its own validation refuses one class and sorts all values; the evaluator has checked them.
    return multiclass_confusion_matrix(pred, labels, num_classes, validate_args=False)


def per_class_accuracy(matrix: Tensor) -> Tensor:
    """Share of each class's images that are recognised.

    Args:
        matrix: ``(K, K)`` counts, rows are true classes.

    Returns:
        ``(K,)`` float64, 0 to 100; NaN for a class without images.
    """
    return 100.0 * matrix.diagonal().double() / matrix.sum(dim=1, dtype=torch.float64)


_AT_THRESHOLD = {"precision": multilabel_precision, "recall": multilabel_recall, "F1": multilabel_f1_score}


class PerClass(NamedTuple):
    """Numbers of each class.

    Attributes:
        positives: ``(K,)`` int64, images that show the class.
        metrics: ``AP``, ``precision``, ``recall``, ``F1``: ``(K,)`` float, 0 to 100; NaN for a class
            without a positive, where none of them says anything about the model.
    """

    positives: Tensor
    metrics: dict[str, Tensor]


def per_class_metrics(probs: Tensor, labels: Tensor, threshold: float = 0.5) -> PerClass:
    """Average precision, and precision, recall and F1 at a threshold, of each class.

    Args:
        probs: ``(N, K)`` float in [0, 1].
        labels: ``(N, K)`` multi-hot, an integer type.
        threshold: a class is predicted where its probability is above it.
    """
    num_classes = labels.shape[1]
    positives = labels.sum(dim=0, dtype=torch.int64)
    present = positives > 0
    metrics = {name: torch.full((num_classes,), torch.nan) for name in ("AP", *_AT_THRESHOLD)}
    num_present = int(present.sum())
    if num_present == 0:
        return PerClass(positives, metrics)
    if num_present < num_classes:
        probs, labels = probs[:, present], labels[:, present]
    common = {"num_labels": num_present, "average": "none", "validate_args": False}
    metrics["AP"][present] = 100 * multilabel_average_precision(probs, labels, **common)
    for name, function in _AT_THRESHOLD.items():
        metrics[name][present] = 100 * function(probs, labels, threshold=threshold, **common)
    return PerClass(positives, metrics)


def summary(probs: Tensor, labels: Tensor, per_class: PerClass, threshold: float = 0.5) -> OrderedDict[str, float]:
    """The numbers of the whole set.

    Args:
        probs: ``(N, K)`` float in [0, 1].
        labels: ``(N, K)`` multi-hot, an integer type.
        per_class: what :func:`per_class_metrics` gives for the same tensors.
        threshold: a class is predicted where its probability is above it.

    Returns:
        Percentages, 0 to 100. ``mAP`` and ``*_macro`` are means over the classes that have a positive;
        ``*_micro`` count all decisions of all classes as one; ``exact_match`` is the share of images
        whose whole set of labels is right. NaN where no class has a positive.
    """
    common = {"num_labels": labels.shape[1], "validate_args": False}
    micro = {"average": "micro", **common}
    any_positive = bool(per_class.positives.any())
    result = OrderedDict(mAP=per_class.metrics["AP"].nanmean().item())
    ap_micro = multilabel_average_precision(probs, labels, **micro).item() if any_positive else torch.nan
    result["mAP_micro"] = 100 * ap_micro
    for name, function in _AT_THRESHOLD.items():
        value = function(probs, labels, threshold=threshold, **micro).item() if any_positive else torch.nan
        result[f"{name}_micro"] = 100 * value
    for name in _AT_THRESHOLD:
        result[f"{name}_macro"] = per_class.metrics[name].nanmean().item()
    result["exact_match"] = 100 * multilabel_exact_match(probs, labels, threshold=threshold, **common).item()
    return result
