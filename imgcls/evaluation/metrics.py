"""Metrics of single-label and multi-label classification as functions of tensors.

torchmetrics, whose import takes longer than that of this package, is imported where it is needed.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def topk_accuracy(pred_classes: Tensor, labels: Tensor, k: int) -> Tensor:
    """The percentage of images whose label is among their k best classes, as a float64 scalar.

    torchmetrics needs the scores of all classes for this; here the indices of the best classes are enough.

    Args:
        pred_classes: ``(N, >= k)`` class indices, best first.
        labels: ``(N,)`` class indices.
        k: the number of predictions per image that count.
    """
    hits = (pred_classes[:, :k] == labels[:, None]).any(dim=1)
    return 100.0 * hits.double().mean()


def confusion_matrix(pred: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts each pair of true class (row) and predicted class (column), from ``(N,)`` indices to ``(K, K)`` int64."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    # The evaluator has checked the values. torchmetrics' validation would sort all of them, and refuses a single class.
    return multiclass_confusion_matrix(pred, labels, num_classes, validate_args=False)


def class_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Metrics of each class from a confusion matrix whose rows are true classes.

    The means without NaN of ``precision``, ``recall`` and ``F1`` are the macro averages of torchmetrics and
    scikit-learn, and that of ``accuracy`` is the balanced accuracy.

    Args:
        matrix: ``(K, K)`` counts.

    Returns:
        ``(K,)`` float64 tensors, 0 to 100: ``accuracy``, NaN for a class without images; ``precision``, ``recall`` and
        ``F1``, NaN for a class that neither has images nor was predicted, and 0 where only the quotient is undefined.
    """
    right, images, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    occurs = images + predicted > 0
    quotients = {"precision": (right, predicted), "recall": (right, images), "F1": (2 * right, images + predicted)}
    scores = {"accuracy": 100.0 * right.double() / images}
    for name, (part, whole) in quotients.items():
        scores[name] = (100.0 * part.double() / whole.clamp(min=1)).where(occurs, torch.nan)
    return scores


def _at_threshold() -> dict[str, Callable[..., Tensor]]:
    from torchmetrics.functional import classification

    return {
        "precision": classification.multilabel_precision,
        "recall": classification.multilabel_recall,
        "F1": classification.multilabel_f1_score,
    }


class PerClass(NamedTuple):
    """Metrics of each class.

    Attributes:
        positives: ``(K,)`` int64, the number of images that have the class.
        metrics: ``AP``, ``precision``, ``recall`` and ``F1``, each ``(K,)`` float, 0 to 100, NaN for a class without
            positives.
    """

    positives: Tensor
    metrics: dict[str, Tensor]


def per_class_metrics(probs: Tensor, labels: Tensor, threshold: float = 0.5) -> PerClass:
    """Average precision, and precision, recall and F1 at a threshold, of each class.

    Args:
        probs: ``(N, K)`` float in [0, 1].
        labels: ``(N, K)`` multi-hot, of an integer type.
        threshold: a class is predicted if its probability is above this.
    """
    from torchmetrics.functional.classification import multilabel_average_precision

    at_threshold = _at_threshold()
    num_classes = labels.shape[1]
    positives = labels.sum(dim=0, dtype=torch.int64)
    present = positives > 0
    metrics = {name: torch.full((num_classes,), torch.nan) for name in ("AP", *at_threshold)}
    count = int(present.sum())
    if count == 0:
        return PerClass(positives, metrics)
    if count < num_classes:
        probs, labels = probs[:, present], labels[:, present]
    metrics["AP"][present] = 100 * multilabel_average_precision(probs, labels, count, "none", validate_args=False)
    for name, function in at_threshold.items():
        metrics[name][present] = 100 * function(probs, labels, count, threshold, "none", validate_args=False)
    return PerClass(positives, metrics)


def summary(probs: Tensor, labels: Tensor, per_class: PerClass, threshold: float = 0.5) -> OrderedDict[str, float]:
    """The metrics of the whole dataset in percent, from the arguments and the result of :func:`per_class_metrics`.

    ``mAP`` and ``*_macro`` are means over the classes that have positives; ``*_micro`` pool the decisions for all
    classes; ``exact_match`` is the share of images whose labels are all predicted, and no others. All but
    ``exact_match`` are NaN if no class has positives.
    """
    from torchmetrics.functional.classification import multilabel_average_precision, multilabel_exact_match

    at_threshold = _at_threshold()
    count = labels.shape[1]
    result = OrderedDict(mAP=per_class.metrics["AP"].nanmean().item())
    micro = {"mAP_micro": multilabel_average_precision(probs, labels, count, "micro", validate_args=False)}
    for name, function in at_threshold.items():
        micro[f"{name}_micro"] = function(probs, labels, count, threshold, "micro", validate_args=False)
    any_positive = bool(per_class.positives.any())
    result |= {name: 100 * value.item() if any_positive else torch.nan for name, value in micro.items()}
    result |= {f"{name}_macro": per_class.metrics[name].nanmean().item() for name in at_threshold}
    result["exact_match"] = 100 * multilabel_exact_match(probs, labels, count, threshold, validate_args=False).item()
    return result
