"""The best evaluation so far, and how long ago it was."""

import logging
import math
from collections.abc import Mapping
from typing import Any

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
