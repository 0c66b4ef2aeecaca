"""Contestants that take turns, so that a machine that slows down slows all of them down."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Candidate:
    """Something that does a fixed amount of work again and again.

    Attributes:
        name: in the table; unique in a race.
        run: does the work once and returns the seconds that it took (see ``timed``).
        amount: of work in one run, in images.
    """

    name: str
    run: Callable[[], float]
    amount: float


@dataclass(frozen=True)
class Table:
    """What a race has shown.

    Attributes:
        title: what was measured.
        unit: of the values, ``"images/s"`` for speeds.
        values: by name, one a round; the same index is the same round in all of them.
        references: names that all others are compared to.
    """

    title: str
    unit: str
    values: dict[str, list[float]]
    references: Sequence[str] = field(default_factory=tuple)

    def ratios(self, name: str, reference: str) -> list[float]:
        """``name`` over ``reference``, round by round."""
        return [a / b for a, b in zip(self.values[name], self.values[reference], strict=True)]


def race(title: str, candidates: Sequence[Candidate], rounds: int, references: Sequence[str] = ()) -> Table:
    """Runs each candidate once unmeasured, then all of them in every round, and gives their images/s.

    Each round begins with another candidate: none is always the one behind the slowest.
    """
    for candidate in candidates:
        candidate.run()
    speeds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for number in tqdm(range(rounds), desc=title, disable=None):
        first = number % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            speeds[candidate.name].append(candidate.amount / candidate.run())
    return Table(title, "images/s", speeds, references)


def timed(work: Callable[[], object], times: int = 1) -> Callable[[], float]:
    """``work``, so many times, as the ``run`` of a candidate; what it left to a GPU is waited for."""

    def run() -> float:
        synchronise()
        start = time.perf_counter()
        for _ in range(times):
            work()
        synchronise()
        return time.perf_counter() - start

    return run


def synchronise() -> None:
    """Waits for the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, middle, high
