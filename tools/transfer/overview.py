"""One image of what the package does: a classifier, the proved hand-off of its backbone, and a detector's boxes."""

import csv
import io
import re
from pathlib import Path

from figure import BLUE, GREEN, GREY, RED, new_figure, plain
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from PIL import Image

from imgcls.data.image import read_image
from imgcls.disk import read_text
from imgcls.errors import UserError
from transfer.detections import ADVICE, draw_detections, read_detections, read_test_set
from transfer.results import find_runs, last_result

# What the log of a detector says about a checked hand-off.
_LOADED = re.compile(r"(\d+)/(\d+) backbone tensors loaded")
_CLASSIFIED = (3, 3)
_DETECTED = (2, 3)
_DPI = 120


def draw_overview(folder: Path, path: Path) -> Path:
    """Draws classified images, the hand-off report and detections from left to right; returns ``path``.

    Args:
        folder: output of ``scripts/transfer_experiment.sh``; only the detectors from the handed-over backbone are used.
        path: the PNG to write.

    Raises:
        UserError: a part of the experiment is missing, or the PNG cannot be written.
    """
    runs = find_runs(folder, "handoff")
    if not runs:
        raise UserError(f"{folder} has no run handoff-SEED; {ADVICE}")
    run = next(iter(runs.values()))
    figure = new_figure(11, 4)
    left, middle, right = figure.subfigures(1, 3, width_ratios=[3.2, 2.2, 5.6])
    _draw_classified(left, folder / "pretrain")
    _draw_handoff(middle, run)
    _draw_detected(right, run)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI, format="png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # 256 colours are enough for boxes and small images, and a third of the size.
        Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error
    return path


def _draw_classified(part: SubFigure, run: Path) -> None:
    """Draws the first images of the classifier's evaluation with their predicted classes."""
    rows, columns = _CLASSIFIED
    top1 = last_result(run, "accuracy/top1")["accuracy/top1"]
    part.suptitle(f"1. train a classifier\n(top-1 on test images: {top1:.1f} %)", fontsize=10)
    predictions = csv.DictReader(io.StringIO(read_text(str(run / "inference" / "predictions.csv"))))
    for axes, row in zip(part.subplots(rows, columns).flat, predictions, strict=False):
        _hide_ticks(axes)
        axes.imshow(read_image(row["file_name"], "RGB"))
        right = row["pred"] == row["label"]
        axes.set_title(plain(row["pred"], 14), fontsize=9, color=GREEN if right else RED, pad=3)


def _draw_handoff(part: SubFigure, run: Path) -> None:
    """Draws an arrow with the number of tensors that the detector took over, as its log says."""
    found = _LOADED.search(read_text(str(run / "log.txt")))
    if not found:
        raise UserError(f"{run / 'log.txt'}: reports no backbone tensors loaded; {ADVICE}")
    part.suptitle("2. hand its backbone over\n(every tensor is checked)", fontsize=10)
    axes = part.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.annotate(
        "", (1, 0.5), (0, 0.5), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 3, "mutation_scale": 24}
    )
    axes.text(0.5, 0.6, f"{found[1]}/{found[2]}", ha="center", fontsize=20, color=BLUE, weight="bold")
    axes.text(0.5, 0.42, "backbone tensors loaded", ha="center", va="top", fontsize=9)
    axes.text(
        0.5, 0.3, "MODEL.WEIGHTS backbone.pth", ha="center", va="top", fontsize=7.5, color=GREY, family="monospace"
    )


def _draw_detected(part: SubFigure, run: Path) -> None:
    """Draws the first test images with the detector's boxes."""
    rows, columns = _DETECTED
    result = last_result(run, "bbox/AP50")
    title = f"3. train a detector from it ({result['iteration'] + 1:,.0f} iterations"
    part.suptitle(
        f"{title}, AP50 {result['bbox/AP50']:.1f})\ntrue boxes white, right detections green, wrong ones red",
        fontsize=10,
    )
    records, names = read_test_set()
    found = read_detections(run)
    for axes, record in zip(part.subplots(rows, columns).flat, records, strict=False):
        _hide_ticks(axes)
        axes.imshow(draw_detections(record, found.get(record["image_id"], []), names))


def _hide_ticks(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=GREY)
