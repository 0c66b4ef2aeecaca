"""Training curves: the loss and the test metrics of a run."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.report.figure import BLUE, GREY, ORANGE, new_figure, plain, save

# Key in metrics.json (with several test sets, it follows "<dataset>/"), legend, style.
_ACCURACY = (
    ("accuracy/top1", "top-1, test", {"color": BLUE, "marker": "o"}),
    ("accuracy/top5", "top-5, test", {"color": ORANGE, "marker": "s"}),
    ("multilabel/mAP", "mAP, test", {"color": BLUE, "marker": "o"}),
    ("multilabel/F1_micro", "F1 (micro), test", {"color": ORANGE, "marker": "s"}),
)


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


def draw_curves(metrics_json: Path, path: Path) -> Path:
    """Draws the loss on the left and top-1 and top-5 (multi-label: mAP and F1) on the right.

    Args:
        metrics_json: the run's ``metrics.json``.
        path: the PNG to write.

    Raises:
        UserError: ``metrics_json`` is missing or not a run's.
    """
    history = read_history(metrics_json)
    figure = new_figure(11, 4.2)
    loss, accuracy = figure.subplots(1, 2, sharex=True)
    _plot(loss, history, "total_loss", "training loss", {"color": BLUE, "linewidth": 1.6})
    loss.set(title="Training loss", ylabel="loss (nats)")
    keys = sorted({key for scalars in history.values() for key in scalars})
    for name, legend, style in _ACCURACY:
        for key in keys:
            if key == name or key.endswith("/" + name):
                prefix = key.removesuffix(name).rstrip("/")
                own_colour = {"color": None} if prefix else {}
                _plot(accuracy, history, key, f"{plain(prefix)} {legend}".strip(), style | own_colour, last=True)
    if any(key.endswith("multilabel/mAP") for key in keys):
        accuracy.set(title="mAP and F1", ylabel="mAP, F1 (%)")
    else:
        accuracy.set(title="Accuracy", ylabel="accuracy (%)")
    for axes in (loss, accuracy):
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if accuracy.lines:
        accuracy.legend(frameon=False)
    else:
        accuracy.text(0.5, 0.5, "no evaluation in metrics.json", ha="center", transform=accuracy.transAxes, color=GREY)
    return save(figure, path)


def _plot(
    axes: Axes, history: dict[int, dict[str, Any]], key: str, legend: str, style: dict[str, Any], last: bool = False
) -> None:
    points = [(iteration, scalars[key]) for iteration, scalars in history.items() if key in scalars]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label=f"{legend}: {y[-1]:.2f} at the end" if last else legend, markersize=5, **style)
