"""Single-label metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from imgcls.evaluation.metrics import confusion_matrix, per_class_accuracy, topk_accuracy


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


def test_confusion_matrix_and_per_class_accuracy(scored):
    scores, labels = scored
    pred = scores.topk(3).indices[:, 0]
    assert not pred.is_contiguous()
    matrix = confusion_matrix(pred, labels, 7)
    assert np.array_equal(matrix, sklearn_confusion_matrix(labels, pred, labels=range(7)))
    accuracy = per_class_accuracy(matrix)
    expected = recall_score(labels, pred, labels=range(7), average=None, zero_division=np.nan)
    assert np.isnan(expected[5])
    np.testing.assert_allclose(accuracy, 100 * expected)


def test_one_image_and_one_class():
    assert topk_accuracy(torch.tensor([[2, 0]]), torch.tensor([0]), 1) == 0
    assert topk_accuracy(torch.tensor([[2, 0]]), torch.tensor([0]), 2) == 100
    assert confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 0]), 1).tolist() == [[2]]
