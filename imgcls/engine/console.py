"""What a person sees while a classifier trains: a progress bar on a terminal, and one line for each evaluation."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, get_event_storage
from tqdm import tqdm

from imgcls.engine.run_state import BestTracker
from imgcls.engine.scalars import IterationScalars, Progress

# A record with this attribute, as in `logger.info(text, extra=FILE_ONLY)`, is written to log.txt and not shown.
FILE_ONLY = {"file_only": True}
# The same for the training of a classifier, where one line tells the results.
DETAIL = {"detail": True}
# Loggers of detectron2 whose lines repeat, in many lines, what our own lines say.
_DETAILS = (
    "detectron2.data.common",
    "detectron2.evaluation.evaluator",
    "detectron2.evaluation.testing",
    "fvcore.common.checkpoint",
)
# Loggers of the lines that the progress bar replaces.
_LINES = ("detectron2.utils.events", "imgcls.checkpoint.checkpointer", "imgcls.engine.plain")
_logger = logging.getLogger(__name__)


class ConsoleFilter(logging.Filter):
    """Keeps details out of the console; log.txt has them.

    Args:
        brief: whether our own lines tell the results, so that detectron2's are left out, too.
        terminal: whether a progress bar is shown.
    """

    def __init__(self, brief: bool, terminal: bool):
        super().__init__()
        self.brief = brief
        self.hidden = (_DETAILS if brief else ()) + (_LINES if brief and terminal else ())
        self.bar: Any = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record; if so, the progress bar makes room for it."""
        if record.levelno < logging.WARNING:
            if getattr(record, "file_only", False) or record.name in self.hidden:
                return False
            if self.brief and getattr(record, "detail", False):
                return False
            if record.name == "detectron2.engine.defaults" and record.getMessage().startswith("Model:"):
                return False
        if self.bar is not None:
            self.bar.clear()
        return True


def filter_console(brief: bool) -> None:
    """Puts a `ConsoleFilter` in front of the console's handlers of this process."""
    shown = ConsoleFilter(brief, sys.stdout.isatty())
    for handler in _console_handlers():
        for old in [f for f in handler.filters if isinstance(f, ConsoleFilter)]:
            handler.removeFilter(old)
        handler.addFilter(shown)


def _console_handlers() -> Iterable[logging.Handler]:
    for name in ("detectron2", "fvcore", "imgcls"):
        for handler in logging.getLogger(name).handlers:
            # detectron2's handler of log.txt is a StreamHandler, too.
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
                yield handler


class TrainingLinePrinter(CommonMetricPrinter):
    """detectron2's printer without the losses of evaluations, of which it would print the median of the last ones."""

    def write(self) -> None:
        """Prints the line of an iteration."""
        histories = get_event_storage().histories()
        hidden = {name: histories.pop(name) for name in list(histories) if name.endswith("/loss")}
        try:
            super().write()
        finally:
            histories.update(hidden)


class TrainingConsole:
    """Shows the progress of a training on the main process; on the others it does nothing.

    Args:
        progress: counts the epochs.
        first: the first iteration.
    """

    def __init__(self, progress: Progress, first: int):
        self.progress = progress
        self._active = comm.is_main_process()
        self._bar: Any = None
        if self._active and sys.stdout.isatty():
            self._bar = tqdm(total=progress.last + 1, initial=first, unit="it", leave=False, dynamic_ncols=True)
            self._attach(self._bar)

    def advance(self) -> None:
        """Called after each iteration."""
        if self._bar is not None:
            self._bar.update()

    def read(self, rows: Sequence[IterationScalars]) -> None:
        """Gets the scalars of the iterations since the last call."""
        if not self._active or not rows:
            return
        self.progress.add(rows)
        if self._bar is not None:
            means = self.progress.means
            self._bar.set_description(f"epoch {self._epoch(rows[-1].iteration)}/{self._epochs}", refresh=False)
            rate = self.progress.batch_size / means["Time"]
            self._bar.set_postfix_str(f"loss {means['Loss']:.3f}, {rate:.0f} images/s")

    def evaluated(self, iteration: int, results: Mapping[str, float], best: BestTracker) -> None:
        """Logs the results of an evaluation in one line."""
        if not self._active or not results:
            return
        means = self.progress.means
        parts = [f"loss {means['Loss']:.4f}"] if means else []
        parts += [f"validation loss {value:.4f}" for name, value in results.items() if name.endswith("/loss")][:1]
        name = best.metric or next(iter(results))
        earlier = f"best {best.value:.2f} in epoch {self._epoch(best.iteration)}"
        where = "best so far" if best.iteration == iteration else earlier
        parts.append(f"{name} {results[name]:.2f} ({where})")
        if means:
            left = timedelta(seconds=round((self.progress.last - iteration) * means["Time"]))
            parts.append(f"{self.progress.batch_size / means['Time']:.0f} images/s, {left} left")
        _logger.info("epoch %d/%d: %s", self._epoch(iteration), self._epochs, ", ".join(parts))

    def close(self) -> None:
        """Removes the progress bar."""
        if self._bar is not None:
            self._attach(None)
            self._bar.close()
            self._bar = None

    def _epoch(self, iteration: int) -> int:
        return self.progress.epoch(iteration) + 1

    @property
    def _epochs(self) -> int:
        return self._epoch(self.progress.last)

    @staticmethod
    def _attach(bar: Any) -> None:
        for handler in _console_handlers():
            for shown in handler.filters:
                if isinstance(shown, ConsoleFilter):
                    shown.bar = bar
