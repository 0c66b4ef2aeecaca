"""Calibration against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from imgcls.report.calibration import BINS, measure_reliability


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 20.0])
def test_error_is_that_of_torchmetrics(sharpness):
    generator = torch.Generator().manual_seed(0)
    probs = (sharpness * torch.randn(500, 6, generator=generator)).softmax(dim=1)
    labels = torch.randint(0, 6, (500,), generator=generator)
    labels[:300] = probs[:300].argmax(dim=1)
    scores, pred = probs.max(dim=1)
    found = measure_reliability(scores.numpy().astype(np.float64), (pred == labels).numpy())
    expected = multiclass_calibration_error(probs, labels, num_classes=6, n_bins=BINS, norm="l1").item()
    assert found.ece == pytest.approx(expected, abs=1e-6) and expected > 0.01
    assert found.counts.sum() == 500


def test_edges_and_extremes():
    scores = np.array([0.0, 1.0, 1.0, 1 / 15])
    found = measure_reliability(scores, np.array([False, True, False, True]))
    assert found.counts.tolist() == [2, *[0] * 13, 2]
    assert found.accuracy[0] == 0.5 and found.accuracy[-1] == 0.5 and found.accuracy[5] == 0
    assert found.ece == pytest.approx((abs(0.5 - 1 / 30) * 2 + 0.5 * 2) / 4)
