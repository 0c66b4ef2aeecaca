import logging
import math

import pytest

from imgcls.engine.run_state import BestTracker


def test_keeps_the_largest_and_where_it_was():
    best = BestTracker("a/top1")
    assert [best.update({"x": 0.0, "a/top1": value}, i) for i, value in enumerate([3.0, 5.0, 5.0, 4.0])] == [
        True, True, False, False,
    ]  # fmt: skip
    assert (best.value, best.iteration, best.waited) == (5.0, 1, 2) and not best.stop


def test_the_first_metric_without_a_name_and_never_a_nan():
    best = BestTracker()
    assert best.update({"mAP": 2.0, "F1": 9.0}, 0) and best.value == 2.0
    assert not best.update({"mAP": math.nan, "F1": 10.0}, 1)
    assert not best.update({}, 2) and best.waited == 1, "no evaluation is no bad one"


def test_stops_when_patience_is_at_its_end_also_after_a_resume(caplog):
    best = BestTracker("m", patience=2)
    for iteration, value in enumerate([1.0, 0.5]):
        best.update({"m": value}, iteration)
    again = BestTracker("m", patience=2)
    again.load_state_dict(best.state_dict())
    assert not again.stop
    with caplog.at_level(logging.INFO, "imgcls"):
        again.update({"m": 0.7}, 2)
    assert again.stop and "m was best with 1.0000 at iteration 0, 2 evaluations ago" in caplog.text


def test_unknown_metric_names_those_there_are():
    with pytest.raises(ValueError, match=r"TEST\.BEST_METRIC is 'top1'; the evaluation gives accuracy/top1, x"):
        BestTracker("top1").update({"accuracy/top1": 1.0, "x": 2.0}, 0)
