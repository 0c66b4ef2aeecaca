"""Turns, ratios and spreads, with candidates whose times are known."""

import time

import pytest
from benchmark.race import Candidate, Table, race, spread, timed


def candidates(order, seconds):
    def make(name):
        times = iter(seconds[name])

        def run():
            order.append(name)
            return next(times)

        return Candidate(name, run, amount=10)

    return [make(name) for name in seconds]


def test_all_run_unmeasured_once_and_then_take_turns():
    order = []
    table = race("t", candidates(order, {"a": [99, 1, 2, 4], "b": [99, 2, 4, 4], "c": [99, 5, 5, 5]}), 3, ["a"])
    assert order == [*"abc", *"abc", *"bca", *"cab"]
    assert table.unit == "images/s" and table.references == ["a"]
    assert table.values == {"a": [10, 5, 2.5], "b": [5, 2.5, 2.5], "c": [2, 2, 2]}


def test_a_ratio_compares_what_ran_in_the_same_round():
    # The machine slows down by 10 in the second round: the ratio does not.
    table = Table("t", "images/s", {"a": [100, 10, 100], "b": [200, 20, 300]}, ["a"])
    assert table.ratios("b", "a") == [2, 2, 3]
    assert table.ratios("a", "a") == [1, 1, 1]


def test_spread_is_the_quartiles():
    assert spread([5, 1, 3, 2, 4]) == (2, 3, 4)
    assert spread([7]) == (7, 7, 7)


def test_timed_runs_the_work_so_often_and_returns_its_seconds(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    done = []
    assert timed(lambda: done.append(1), times=3)() == 2.5
    assert done == [1, 1, 1]


def test_rounds_of_different_candidates_must_match():
    with pytest.raises(ValueError):
        Table("t", "s", {"a": [1, 2], "b": [1]}).ratios("a", "b")
