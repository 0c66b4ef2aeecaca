"""What metrics.json needs of the past, so that a resumed run writes the lines of an uninterrupted one."""

import os
from typing import Any

from detectron2.utils.events import EventStorage

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
