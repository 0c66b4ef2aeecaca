"""Metrics of single-label classification: tensors in, numbers out."""

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


def topk_accuracy(pred_classes: Tensor, labels: Tensor, k: int) -> Tensor:
    """Share of pictures whose class is among the k best.

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
    """Share of each class's pictures that are recognised.

    Args:
        matrix: ``(K, K)`` counts, rows are true classes.

    Returns:
        ``(K,)`` float64, 0 to 100; NaN for a class without pictures.
    """
    return 100.0 * matrix.diagonal().double() / matrix.sum(dim=1, dtype=torch.float64)
