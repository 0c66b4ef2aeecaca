"""Precision and recall at each threshold against scikit-learn, and classes that occur together."""

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from imgcls.errors import UserError
from imgcls.report.threshold_curves import STEPS, count_together, measure_curves, read_label_sets


def test_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    probs = rng.random((80, 3), dtype=np.float32)
    labels = rng.random((80, 3)) < probs
    labels[:, 2] = False
    curves = measure_curves(probs, labels)
    assert curves.precision.shape == curves.recall.shape == (4, STEPS)
    for step in (0, 30, 50, 95):
        decided = probs > np.float32(step / 100)
        for k in range(2):
            assert curves.precision[k + 1, step] == pytest.approx(precision_score(labels[:, k], decided[:, k]))
            assert curves.recall[k + 1, step] == pytest.approx(recall_score(labels[:, k], decided[:, k]))
        assert curves.precision[0, step] == pytest.approx(precision_score(labels, decided, average="micro"))
        assert curves.recall[0, step] == pytest.approx(recall_score(labels, decided, average="micro"))
    assert np.isnan(curves.recall[3]).all() and np.isnan(curves.precision[:, -1]).all()


def test_label_sets_of_names_with_separators():
    labels = read_label_sets(["a,b;c", "", "c"], ["a;b", "c"])
    assert labels.tolist() == [[True, True], [False, False], [False, True]]
    assert count_together(labels).tolist() == [[1, 1], [1, 2]]
    with pytest.raises(UserError, match='differ only in ";" and ","'):
        read_label_sets([""], ["a;b", "a,b"])
    with pytest.raises(UserError, match="unknown class 'x'"):
        read_label_sets(["x"], ["a"])
