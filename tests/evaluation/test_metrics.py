"""Single-label and multi-label metrics against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from imgcls.evaluation.metrics import class_scores, confusion_matrix, per_class_metrics, summary, topk_accuracy


@pytest.fixture
def scored() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (200, 7) and labels (200,) that agree often, not always; class 5 never is the truth."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (200,), generator=generator)
    labels[labels == 5] = 6
    scores = torch.rand(200, 7, generator=generator)
    scores[torch.arange(200), labels] += 0.3
    return scores.softmax(dim=1), labels


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_equals_scikit_learn(scored, k):
    scores, labels = scored
    pred = scores.topk(5).indices
    expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert 0.2 < expected < 1
    assert topk_accuracy(pred, labels, k) == pytest.approx(100 * expected, abs=1e-9)


def test_top1_equals_accuracy_on_non_contiguous_tensors(scored):
    scores, labels = scored
    pred = scores.T.contiguous().T.topk(3).indices.T.contiguous().T
    strided = torch.stack([labels, labels], dim=1)[:, 0]
    assert not pred.is_contiguous() and not strided.is_contiguous()
    expected = accuracy_score(labels, scores.argmax(dim=1))
    assert topk_accuracy(pred, strided, 1) == pytest.approx(100 * expected, abs=1e-9)


def test_confusion_matrix_equals_scikit_learn(scored):
    scores, labels = scored
    pred = scores.topk(3).indices[:, 0]
    assert not pred.is_contiguous()
    matrix = confusion_matrix(pred, labels, 7)
    assert np.array_equal(matrix, sklearn_confusion_matrix(labels, pred, labels=range(7)))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("case", ["absent and predicted", "absent", "never predicted"])
def test_class_scores_and_their_means_equal_scikit_learn_and_torchmetrics(scored, case):
    scores, labels = scored
    if case != "absent and predicted":
        scores[:, 5] = 0
    if case == "never predicted":
        labels[:3] = 5
    pred = scores.argmax(dim=1)
    result = class_scores(confusion_matrix(pred, labels, 7))
    assert list(result) == ["accuracy", "precision", "recall", "F1"]

    present = np.bincount(labels, minlength=7) > 0
    occurs = present | (np.bincount(pred, minlength=7) > 0)
    assert present[5] == (case == "never predicted") and occurs[5] == (case != "absent")
    precision, recall, f1, _ = precision_recall_fscore_support(labels, pred, labels=range(7), zero_division=0)
    np.testing.assert_allclose(result["accuracy"], np.where(present, 100 * recall, np.nan))
    for name, expected in (("precision", precision), ("recall", recall), ("F1", f1)):
        np.testing.assert_allclose(result[name], np.where(occurs, 100 * expected, np.nan))

    mean = {name: values.nanmean().item() for name, values in result.items()}
    assert mean["accuracy"] == pytest.approx(100 * balanced_accuracy_score(labels, pred))
    macro = precision_recall_fscore_support(labels, pred, average="macro", zero_division=0)
    functions = multiclass_precision, multiclass_recall, multiclass_f1_score
    for name, expected, function in zip(("precision", "recall", "F1"), macro, functions, strict=False):
        assert mean[name] == pytest.approx(100 * expected)
        assert mean[name] == pytest.approx(100 * function(pred, labels, 7, average="macro").item(), rel=1e-5)
    assert (mean["recall"] != mean["accuracy"]) == (case == "absent and predicted")


def test_one_image_and_one_class():
    assert topk_accuracy(torch.tensor([[2, 0]]), torch.tensor([0]), 1) == 0
    assert topk_accuracy(torch.tensor([[2, 0]]), torch.tensor([0]), 2) == 100
    assert confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 0]), 1).tolist() == [[2]]


def make_multi_label(n: int = 150, k: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(n, k, generator=generator) < 0.3).to(torch.uint8)
    probs = (torch.rand(n, k, generator=generator) + 0.5 * labels) / 1.5
    # Two implementations of AP can differ where images have equal scores.
    return (probs * 50).round() / 50, labels


@pytest.mark.parametrize("threshold", [0.41, 0.51])
def test_everything_equals_scikit_learn(threshold):
    probs, labels = make_multi_label()
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
    probs, labels = make_multi_label()
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
    probs, labels = make_multi_label()
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
    probs, labels = make_multi_label()
    turned = probs.T.contiguous().T, labels.T.contiguous().T
    assert not turned[0].is_contiguous()
    assert summary(*turned, per_class_metrics(*turned)) == summary(probs, labels, per_class_metrics(probs, labels))
