"""The best evaluation so far, and how long ago it was."""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from detectron2.utils.events import EventStorage

from imgcls.errors import UserError

_logger = logging.getLogger(__name__)


class BestTracker:
    """Remembers the best value of one metric; larger is better.

    Args:
        metric: a name in the results, or "" for the first one there.
        patience: evaluations in a row without a better value after which to stop; 0 never stops.

    Attributes:
        value: the best so far, -inf before the first.
        iteration: that it was reached at, -1 before the first.
        waited: evaluations since then.
    """

    def __init__(self, metric: str = "", patience: int = 0):
        self.metric = metric
        self.patience = patience
        self.value, self.iteration, self.waited = -math.inf, -1, 0

    def update(self, results: Mapping[str, float], iteration: int) -> bool:
        """Whether the results of this iteration are the best; a value that is NaN never is.

        Args:
            results: metric name to value; may be empty, then nothing changes.

        Raises:
            ValueError: the metric is not among them.
        """
        if not results:
            return False
        name = self.metric or next(iter(results))
        if name not in results:
            raise UserError(f"TEST.BEST_METRIC is {name!r}; the evaluation gives {', '.join(results)}")
        if results[name] > self.value:
            self.value, self.iteration, self.waited = results[name], iteration, 0
            return True
        self.waited += 1
        if self.stop:
            _logger.info(
                "stopping: %s was best with %.4f at iteration %d, %d evaluations ago (TEST.PATIENCE)",
                name, self.value, self.iteration, self.waited,
            )  # fmt: skip
        return False

    @property
    def stop(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "iteration": self.iteration, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value, self.iteration, self.waited = state["value"], state["iteration"], state["waited"]


WINDOW = 20  # detectron2's writers give medians over so many values
_OF_THE_PROCESS = {"time", "data_time", "rank_data_time", "eta_seconds"}  # no other process goes on with these


class RunLog:
    """The recent values of every scalar, and how much of metrics.json was written when they were.

    Args:
        folder: of the run.
        period: iterations from one line to the next.
    """

    def __init__(self, folder: str, period: int):
        self.path = os.path.join(folder, "metrics.json")
        self.period = period
        self.storage: EventStorage | None = None
        self._loaded: dict[str, Any] | None = None

    def start(self, storage: EventStorage) -> None:
        """Takes over a run's storage, filled with what was loaded; lines after the checkpoint are dropped."""
        self.storage = storage
        if self._loaded is None:
            return
        if os.path.isfile(self.path) and os.path.getsize(self.path) > self._loaded["bytes"]:
            os.truncate(self.path, self._loaded["bytes"])
        first = storage.iter
        for name, smoothed, values in self._loaded["scalars"]:
            for value, iteration in values:
                storage.iter = iteration
                storage.put_scalar(name, value, smoothing_hint=smoothed)
        storage.iter = first
        self._loaded = None

    def state_dict(self) -> dict[str, Any]:
        """What a line that is still to come needs: values to smooth, and those that no line has had yet."""
        written = (self.storage.iter + 1) // self.period * self.period - 1
        hints = self.storage.smoothing_hints()
        histories = self.storage.histories()
        # Which one was put first differs in a resumed run. The smoothed ones come first, as in any run: detectron2's
        # writer orders its lines by that.
        names = sorted(histories.keys() - _OF_THE_PROCESS, key=lambda name: (not hints[name], name))
        scalars = [
            [name, hints[name], [list(value) for value in histories[name].values()[-WINDOW if hints[name] else -1 :]]]
            for name in names
            if hints[name] or self.storage.latest()[name][1] > written
        ]
        return {"scalars": scalars, "bytes": os.path.getsize(self.path) if os.path.isfile(self.path) else 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = state
