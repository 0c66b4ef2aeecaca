"""Whether a score of 0.8 means that 80 % of such predictions are right."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Reliability(NamedTuple):
    """A reliability diagram.

    Attributes:
        counts: predictions in each of ``BINS`` equal ranges of the score, ``(BINS,)``.
        confidence: their mean score, 0 to 1; 0 in an empty range.
        accuracy: the share of them that is right, 0 to 1; 0 in an empty range.
        ece: expected calibration error, 0 to 1: the mean gap between the two, weighted by the counts.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def measure_reliability(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Reliability:
    """Compares the score of the predicted class with how often it is the true one.

    Args:
        scores: ``(N,)`` in [0, 1], of the best class.
        right: ``(N,)``, whether that class is the true one.
    """
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    # A score on an edge belongs to the range below it, as in torchmetrics.
    index = np.clip(np.searchsorted(edges, scores.astype(np.float32)) - 1, 0, BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    total = np.maximum(counts, 1)
    confidence = np.bincount(index, weights=scores, minlength=BINS) / total
    accuracy = np.bincount(index, weights=right, minlength=BINS) / total
    ece = float((np.abs(accuracy - confidence) * counts).sum() / max(len(scores), 1))
    return Reliability(counts, confidence, accuracy, ece)
