"""Precision and recall of a multi-label classifier at every threshold, and which classes occur together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.errors import UserError

STEPS = 101


class ThresholdCurves(NamedTuple):
    """Precision and recall at ``STEPS`` thresholds from 0 to 1.

    Attributes:
        precision: ``(K + 1, STEPS)``, 0 to 1: all decisions pooled, then each class. NaN where nothing is predicted.
        recall: likewise; NaN for a class without positives.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def measure_curves(probabilities: NDArray[np.float32], labels: NDArray[np.bool_]) -> ThresholdCurves:
    """Counts decisions at each threshold; a class is predicted where its probability is above it, as in evaluation.

    Args:
        probabilities: ``(N, K)`` in [0, 1].
        labels: ``(N, K)``.
    """
    num_classes = labels.shape[1]
    predicted, hits = np.zeros((2, num_classes + 1, STEPS))
    thresholds = np.linspace(0, 1, STEPS, dtype=np.float32)
    for k in range(num_classes):  # class by class, because N * K * STEPS numbers may not fit into memory
        column = np.asarray(probabilities[:, k], np.float32)
        for target, values in ((predicted, column), (hits, column[labels[:, k]])):
            target[k + 1] = len(values) - np.searchsorted(np.sort(values), thresholds, side="right")
    predicted[0], hits[0] = predicted[1:].sum(axis=0), hits[1:].sum(axis=0)
    positives = np.concatenate([[labels.sum()], labels.sum(axis=0)])[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return ThresholdCurves(hits / predicted, hits / positives)


def read_label_sets(texts: Sequence[str], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Label sets ``(N, K)`` from the lists in ``predictions.csv``.

    Args:
        texts: class names with ``";"`` between them; a ``";"`` in a name is written as ``","``.
        classes: names, index = label.

    Raises:
        UserError: two names are written alike, or a name is unknown.
    """
    index = {name.replace(";", ","): k for k, name in enumerate(classes)}
    if len(index) < len(classes):
        raise UserError('class names differ only in ";" and ","; rename one of them to tell them apart')
    labels = np.zeros((len(texts), len(classes)), bool)
    for row, text in zip(labels, texts, strict=True):
        for name in text.split(";") if text else ():
            if name not in index:
                raise UserError(f"predictions.csv has the unknown class {name!r}; evaluate the run again to write it")
            row[index[name]] = True
    return labels


def count_together(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts ``(K, K)`` of images that have both classes; the diagonal holds the images of each class."""
    return np.rint(labels.T.astype(np.float32) @ labels.astype(np.float32)).astype(np.int64)
