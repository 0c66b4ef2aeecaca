"""The scalars of a run: reading metrics.json, and the series that a report draws from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from imgcls.errors import UserError, UserFileNotFoundError

# Last part of a metric's name, and what the legend calls it.
_METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "balanced": "balanced accuracy",
    "mAP": "mAP",
    "F1_micro": "F1 (micro)",
    "F1_macro": "F1 (macro)",
    "AP": "AP",
    "AP50": "AP50",
}


class Series(NamedTuple):
    """A line of a chart.

    Attributes:
        name: in the legend.
        points: x and y.
        dashed: how it is drawn.
    """

    name: str
    points: list[tuple[float, float]]
    dashed: bool = False


def read_history(path: Path) -> dict[int, dict[str, Any]]:
    """Reads the scalars of each iteration; those of a resumed run replace the ones that it repeated.

    Raises:
        UserError: the file is missing or has no line that detectron2's writer wrote.
    """
    if not path.is_file():
        raise UserFileNotFoundError(f"{path}: no such file; give the OUTPUT_DIR of a training run")
    history: dict[int, dict[str, Any]] = {}
    last_trained = -1
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            scalars = json.loads(line)
            iteration = int(scalars.pop("iteration"))
        except (ValueError, KeyError, TypeError, AttributeError):
            # A run that was killed while writing leaves half a line.
            continue
        # An evaluation may be written after the loss of a later iteration, so only the loss reveals a restart.
        if "total_loss" in scalars:
            if iteration <= last_trained:
                history = {i: old for i, old in history.items() if i < iteration}
            last_trained = iteration
        history.setdefault(iteration, {}).update(scalars)
    if not history:
        raise UserError(f"{path}: no line with an 'iteration'; give the OUTPUT_DIR of a training run")
    return dict(sorted(history.items()))


def loss_series(history: dict[int, dict[str, Any]], x: Callable[[int], float]) -> list[Series]:
    """The training loss and, where an evaluation gives one, the validation loss.

    Args:
        history: from ``read_history``.
        x: position of an iteration on the axis.
    """
    found = [Series("training loss", _points(history, "total_loss", x))]
    for key in _keys(history):
        prefix, _, last = key.rpartition("/")
        if prefix and last == "loss":
            found.append(Series(_join(_source(prefix), "validation loss"), _points(history, key, x)))
    return [series for series in found if series.points]


def metric_series(history: dict[int, dict[str, Any]], x: Callable[[int], float]) -> list[Series]:
    """The main metrics, those of the test sets before those of the training batches; arguments as ``loss_series``."""
    found = []
    for last, title in _METRICS.items():
        for key in _keys(history):
            prefix, _, name = key.rpartition("/")
            if prefix and name == last:
                training = prefix == "train"
                source = "training batches" if training else _source(prefix)
                found.append(Series(_join(source, title), _points(history, key, x), dashed=training))
    return sorted(found, key=lambda series: series.dashed)


def _keys(history: dict[int, dict[str, Any]]) -> list[str]:
    return sorted({key for scalars in history.values() for key in scalars})


def _points(history: dict[int, dict[str, Any]], key: str, x: Callable[[int], float]) -> list[tuple[float, float]]:
    values = ((iteration, scalars.get(key)) for iteration, scalars in history.items())
    return [(x(iteration), float(value)) for iteration, value in values if isinstance(value, (int, float))]


def _source(prefix: str) -> str:
    """The test set or ``"ema"`` in front of the task's name, or nothing where there is one test set only."""
    return prefix.rpartition("/")[0]


def _join(source: str, title: str) -> str:
    return f"{source}: {title}" if source else title
