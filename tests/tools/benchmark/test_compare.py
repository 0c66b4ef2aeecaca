"""Turns, ratios, spreads and the time budget, with candidates whose times are known."""

import time

import pytest
from benchmark.compare import Budget, Candidate, Table, compare, spread, timed


def candidates(order, seconds):
    def make(name):
        times = iter(seconds[name])

        def run():
            order.append(name)
            return next(times)

        return Candidate(name, run, amount=10)

    return [make(name) for name in seconds]


@pytest.fixture
def clock(monkeypatch):
    """``clock.sleep(3)`` lets 3 seconds pass."""

    class Clock:
        now = 100.0

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def test_candidates_run_once_unmeasured_and_then_take_turns():
    order = []
    runs = candidates(order, {"a": [99, 1, 2, 4], "b": [99, 2, 4, 4], "c": [99, 5, 5, 5]})
    table = compare("t", runs, Budget(3), ["a"])
    assert order == [*"abc", *"abc", *"bca", *"cab"]
    assert table.unit == "images/s" and table.references == ["a"]
    assert table.values == {"a": [10, 5, 2.5], "b": [5, 2.5, 2.5], "c": [2, 2, 2]}
    assert (table.rounds, table.planned) == (3, 3)


def test_without_warm_up_every_run_is_measured():
    order = []
    compare("t", candidates(order, {"a": [1, 1], "b": [1, 1]}), Budget(2), warm_up=False)
    assert order == [*"ab", *"ba"]


def test_a_round_starts_only_if_one_as_long_as_the_longest_would_end_in_time(clock):
    seconds = iter([10, 30, 10, 10, 10])
    taken = []
    for number in Budget(rounds=20, seconds=90).open_rounds("t")():
        clock.sleep(next(seconds))
        taken.append(number)
    # 60 seconds have passed after four rounds: another 30 would fit exactly, after five they would not.
    assert taken == [0, 1, 2, 3, 4]


def test_one_round_runs_even_when_the_time_is_up(clock):
    budget = Budget(rounds=5, seconds=10)
    rounds = budget.open_rounds("t")
    clock.sleep(99)  # the warm-up
    assert [clock.sleep(1) or number for number in rounds()] == [0]
    assert budget.seconds_left < 0


def test_comparisons_share_the_time_evenly_and_what_one_leaves_goes_to_the_others(clock):
    budget = Budget(rounds=100, seconds=60, comparisons=3)
    counts = []
    for length in (15, 1, 1):
        counts.append(0)
        for _ in budget.open_rounds("t")():
            clock.sleep(length)
            counts[-1] += 1
    # Of 60 seconds the first gets 20 and uses 15; the second gets half of the remaining 45.
    assert counts == [1, 22, 23]


def test_compare_reports_how_many_rounds_it_has_run(clock):
    def run():
        clock.sleep(10)
        return 10.0

    table = compare("t", [Candidate("a", run, 1)], Budget(50, seconds=35))
    assert (table.rounds, table.planned) == (2, 50)  # and one unmeasured run


def test_a_ratio_compares_runs_of_the_same_round():
    # The machine slows down by 10 in the second round; the ratio does not.
    table = Table("t", "images/s", {"a": [100, 10, 100], "b": [200, 20, 300]}, ["a"])
    assert table.ratios("b", "a") == [2, 2, 3]
    assert table.ratios("a", "a") == [1, 1, 1]


def test_spread_is_the_quartiles():
    assert spread([5, 1, 3, 2, 4]) == (2, 3, 4)
    assert spread([7]) == (7, 7, 7)


def test_timed_repeats_the_work_and_returns_its_seconds(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    done = []
    assert timed(lambda: done.append(1), times=3)() == 2.5
    assert done == [1, 1, 1]


def test_candidates_must_have_the_same_number_of_rounds():
    with pytest.raises(ValueError):
        Table("t", "s", {"a": [1, 2], "b": [1]}).ratios("a", "b")
