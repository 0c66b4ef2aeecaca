"""Figures of all classes, readable from 2 to 1,000 classes: the confusion matrix and the average precisions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from imgcls.errors import UserError
from imgcls.report.figure import BLUE, GREY, new_figure, plain, read_csv, save

# More numbers than this in a row, or more names along an axis, are too small to read.
_MAX_NUMBERS, _MAX_NAMES = 20, 60


def read_confusion_matrix(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Reads class names, and counts ``(K, K)`` with a row for each true class.

    Raises:
        UserError: the file is missing or is not a square table of counts.
    """
    header, *rows = read_csv(path)
    try:
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
    except ValueError as error:
        raise UserError(f"{path}: not a table of counts; evaluate the run again to write it") from error
    if counts.shape != (len(header) - 1,) * 2:
        raise UserError(f"{path}: not a square table; evaluate the run again to write it")
    return header[1:], counts


def draw_confusion_matrix(confusion_csv: Path, path: Path, labels: Mapping[str, str]) -> Path:
    """Draws each true class's predictions as percentages of its images.

    Args:
        confusion_csv: ``confusion_matrix.csv`` of an evaluation.
        path: the PNG to write.
        labels: text for each class name, from ``label_classes``; other names are drawn as they are.

    Raises:
        UserError: ``confusion_csv`` is missing or not a confusion matrix.
    """
    names, counts = read_confusion_matrix(confusion_csv)
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * counts / np.maximum(totals, 1)
    side = float(np.clip(2.5 + 0.5 * len(names), 4.5, 11))
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    # A square-root scale makes mistakes of a few percent visible beside a diagonal near 100.
    norm = PowerNorm(0.5, vmin=0, vmax=100)
    image = axes.imshow(percent, cmap="Blues", norm=norm)
    figure.colorbar(image, ax=axes, label="share of the true class's images (%)", shrink=0.85)
    right = 100 * counts.trace() / counts.sum()
    axes.set(title=f"Confusion matrix: {right:.2f} % of {counts.sum():,} test images right")
    if len(names) <= _MAX_NAMES:
        axes.set(xlabel="predicted class", ylabel="true class (number of images)")
        _name_axes(axes, [plain(labels.get(name, name)) for name in names], totals[:, 0])
    else:
        axes.set(xlabel="index of the predicted class", ylabel="index of the true class")
    if len(names) <= _MAX_NUMBERS:
        for row, column in zip(*counts.nonzero(), strict=True):
            value = percent[row, column]
            colour = "white" if norm(value) > 0.6 else "black"
            axes.text(
                column, row, f"{value:.{3 if value >= 10 else 2}g}", ha="center", va="center", fontsize=8, color=colour
            )
    return save(figure, path)


def _name_axes(axes: Axes, labels: list[str], totals: NDArray[np.int64]) -> None:
    ticks, size = range(len(labels)), 9 if len(labels) <= _MAX_NUMBERS else 6
    rotation = 0 if max(map(len, labels)) <= 3 else 90
    axes.set_xticks(ticks, labels, rotation=rotation, fontsize=size)
    axes.set_yticks(ticks, [f"{label} ({n:,})" for label, n in zip(labels, totals, strict=True)], fontsize=size)


def draw_ap_bars(per_class: list[dict[str, Any]], path: Path, labels: Mapping[str, str]) -> Path:
    """Draws one bar per class, best first; classes without positives come last and have no bar.

    Args:
        per_class: ``"class"``, ``"positives"`` and ``"AP"`` (0 to 100 or None) of each class.
        path: the PNG to write.
        labels: as for ``draw_confusion_matrix``.
    """
    ranked = sorted(per_class, key=lambda row: -1.0 if row["AP"] is None else row["AP"], reverse=True)
    scores = [row["AP"] for row in ranked if row["AP"] is not None]
    few = len(ranked) <= _MAX_NAMES
    figure = new_figure(8, max(3, 1.4 + 0.3 * len(ranked)) if few else 8)
    axes = figure.subplots()
    positions = range(len(ranked))
    axes.barh(positions[: len(scores)], scores, height=0.75 if few else 1, color=BLUE)
    mean = f"mAP {np.mean(scores):.2f} % over {len(scores)} classes" if scores else "no class has positives"
    axes.set(
        title=f"Average precision per class: {mean}", xlabel="average precision (%)", xlim=(0, 108 if few else 100)
    )
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xticks(range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)
    if few:
        names = [plain(labels.get(row["class"], row["class"])) for row in ranked]
        ticks = [f"{name} ({row['positives']:,})" for name, row in zip(names, ranked, strict=True)]
        axes.set_yticks(positions, ticks, fontsize=9)
        axes.set_ylabel("class (number of positives)")
        for y, row in enumerate(ranked):
            text = "no positives in this set" if row["AP"] is None else f"{row['AP']:.1f}"
            colour = GREY if row["AP"] is None else "black"
            axes.text((row["AP"] or 0) + 1, y, text, va="center", fontsize=8, color=colour)
    else:
        axes.set_ylabel("classes, best first")
    return save(figure, path)
