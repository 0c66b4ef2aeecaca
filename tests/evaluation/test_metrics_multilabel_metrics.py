"""Multi-label metrics against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
)

from imgcls.evaluation.metrics import per_class_metrics, summary


def make(n: int = 150, k: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, k, generator=generator) < 0.3).to(torch.uint8)
    probs = (torch.rand(n, k, generator=generator) + 0.5 * labels) / 1.5
    # Ties between images are where two implementations of AP come apart.
    return (probs * 50).round() / 50, labels


@pytest.mark.parametrize("threshold", [0.41, 0.51])
def test_everything_equals_scikit_learn(threshold):
    probs, labels = make()
    pred = (probs > threshold).int().numpy()
    per_class = per_class_metrics(probs, labels, threshold)
    result = summary(probs, labels, per_class, threshold)

    ap = average_precision_score(labels, probs, average=None)
    np.testing.assert_allclose(per_class.metrics["AP"], 100 * ap, rtol=1e-5)
    precision, recall, f1, support = precision_recall_fscore_support(labels, pred, average=None)
    np.testing.assert_allclose(per_class.metrics["precision"], 100 * precision, rtol=1e-5)
    np.testing.assert_allclose(per_class.metrics["recall"], 100 * recall, rtol=1e-5)
    np.testing.assert_allclose(per_class.metrics["F1"], 100 * f1, rtol=1e-5)
    assert per_class.positives.tolist() == support.tolist()

    expected = {
        "mAP": ap.mean(),
        "mAP_micro": average_precision_score(labels, probs, average="micro"),
        "exact_match": accuracy_score(labels, pred),
    }
    for average in ("micro", "macro"):
        values = precision_recall_fscore_support(labels, pred, average=average)
        expected |= {f"{name}_{average}": v for name, v in zip(("precision", "recall", "F1"), values, strict=False)}
    assert set(result) == set(expected)
    assert result == {name: pytest.approx(100 * value, rel=1e-5) for name, value in expected.items()}
    assert all(0.02 < value < 0.99 for value in expected.values())


def test_class_without_a_positive_is_left_out_of_macro_means_and_stays_in_micro():
    probs, labels = make()
    labels[:, 2] = 0
    kept = [0, 1, 3, 4, 5]
    per_class = per_class_metrics(probs, labels)
    assert all(values.isnan().tolist() == [i == 2 for i in range(6)] for values in per_class.metrics.values())
    result = summary(probs, labels, per_class)
    pred = (probs > 0.5).int().numpy()
    expected = average_precision_score(labels[:, kept], probs[:, kept], average="macro")
    assert result["mAP"] == pytest.approx(100 * expected, rel=1e-5)
    expected = f1_score(labels[:, kept], pred[:, kept], average="macro")
    assert result["F1_macro"] == pytest.approx(100 * expected, rel=1e-5)
    # The false alarms of the absent class still count among all decisions.
    assert result["F1_micro"] == pytest.approx(100 * f1_score(labels, pred, average="micro"), rel=1e-5)
    assert result["F1_micro"] < 100 * f1_score(labels[:, kept], pred[:, kept], average="micro") - 1


def test_class_that_is_never_predicted_has_precision_zero():
    probs, labels = make()
    probs[:, 4] *= 0.1
    per_class = per_class_metrics(probs, labels)
    assert per_class.metrics["precision"][4] == 0
    pred = (probs > 0.5).int().numpy()
    expected = f1_score(labels, pred, average="macro", zero_division=0)
    assert summary(probs, labels, per_class)["F1_macro"] == pytest.approx(100 * expected, rel=1e-5)


def test_no_positive_at_all_is_nan_and_exact_match_still_counts():
    probs, labels = torch.tensor([[0.2, 0.9], [0.1, 0.2]]), torch.zeros(2, 2, dtype=torch.uint8)
    result = summary(probs, labels, per_class_metrics(probs, labels))
    assert result.pop("exact_match") == 50
    assert all(math.isnan(value) for value in result.values())


def test_one_image_one_class_and_non_contiguous():
    one = torch.tensor([[1]], dtype=torch.uint8)
    result = summary(torch.tensor([[0.7]]), one, per_class_metrics(torch.tensor([[0.7]]), one))
    assert set(result.values()) == {100.0}
    probs, labels = make()
    turned = probs.T.contiguous().T, labels.T.contiguous().T
    assert not turned[0].is_contiguous()
    assert summary(*turned, per_class_metrics(*turned)) == summary(probs, labels, per_class_metrics(probs, labels))
