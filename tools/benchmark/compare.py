"""Candidates that take turns, so that a machine that slows down slows all of them down."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Candidate:
    """An implementation that does a fixed amount of work each time it is run.

    Attributes:
        name: shown in the table; unique within a comparison.
        run: does the work once and returns the seconds it took (see ``timed``).
        amount: images processed by one run.
    """

    name: str
    run: Callable[[], float]
    amount: float


@dataclass(frozen=True)
class Table:
    """The result of a comparison.

    Attributes:
        title: what was measured.
        unit: of the values, ``"images/s"`` for speeds.
        values: by candidate, one per round; equal indices belong to the same round.
        references: candidates that all others are compared to.
        planned: rounds that were asked for; fewer were run if the time budget ran out. 0 if unknown.
    """

    title: str
    unit: str
    values: dict[str, list[float]]
    references: Sequence[str] = field(default_factory=tuple)
    planned: int = 0

    @property
    def rounds(self) -> int:
        """Number of rounds that were run."""
        return len(next(iter(self.values.values())))

    def ratios(self, name: str, reference: str) -> list[float]:
        """``name`` divided by ``reference``, round by round."""
        return [a / b for a, b in zip(self.values[name], self.values[reference], strict=True)]


class Budget:
    """Rounds and time of one command, shared evenly by its comparisons.

    Args:
        rounds: maximum for each comparison.
        seconds: for the whole command, counted from now.
        comparisons: how many comparisons share the time.
    """

    def __init__(self, rounds: int, seconds: float = float("inf"), comparisons: int = 1):
        self.planned = rounds
        self.end = time.monotonic() + seconds
        self.comparisons = comparisons

    @property
    def seconds_left(self) -> float:
        """Seconds until the end of the command's time; negative afterwards."""
        return self.end - time.monotonic()

    def open_rounds(self, title: str) -> Callable[[], Iterator[int]]:
        """Begins a comparison, whose share of the time covers everything from now on, including warm-up.

        Returns:
            A function that yields round numbers: always 0, and each further one only if a round that is as long as the
            longest so far would still end in time.
        """
        start = time.monotonic()
        end = start + (self.end - start) / max(1, self.comparisons)
        self.comparisons -= 1

        def rounds() -> Iterator[int]:
            longest = 0.0
            with tqdm(total=self.planned, desc=title, disable=None) as progress:
                for number in range(self.planned):
                    begun = time.monotonic()
                    if number > 0 and begun + longest > end:
                        return
                    yield number
                    longest = max(longest, time.monotonic() - begun)
                    progress.update()

        return rounds


def compare(
    title: str, candidates: Sequence[Candidate], budget: Budget, references: Sequence[str] = (), warm_up: bool = True
) -> Table:
    """Runs all candidates in every round and returns their images/s.

    Each round starts with a different candidate, so that none always follows the slowest one. ``warm_up`` first runs
    each candidate once without measuring it.
    """
    rounds = budget.open_rounds(title)
    for candidate in candidates if warm_up else ():
        candidate.run()
    speeds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for number in rounds():
        first = number % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            speeds[candidate.name].append(candidate.amount / candidate.run())
    return Table(title, "images/s", speeds, references, budget.planned)


def timed(work: Callable[[], object], times: int = 1) -> Callable[[], float]:
    """Returns the ``run`` of a candidate: repeats ``work`` and waits until the GPU has finished it."""

    def run() -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(times):
            work()
        synchronize()
        return time.perf_counter() - start

    return run


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, middle, high
