"""Average precision of each class as bars: what a confusion matrix is for one label a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from .figure import BLUE, GREY, new_figure, plain, save

# More names than this beside the bars cannot be read.
_MAX_NAMES = 60


def draw_ap_bars(per_class: list[dict[str, Any]], path: Path) -> Path:
    """Draws one bar a class, best first; classes without a positive have none and come last.

    Args:
        per_class: ``"class"``, ``"positives"`` and ``"AP"`` (0 to 100 or None) of each class.
        path: the PNG to write.
    """
    ranked = sorted(per_class, key=lambda row: -1.0 if row["AP"] is None else row["AP"], reverse=True)
    scores = [row["AP"] for row in ranked if row["AP"] is not None]
    few = len(ranked) <= _MAX_NAMES
    figure = new_figure(8, max(3, 1.4 + 0.3 * len(ranked)) if few else 8)
    axes = figure.subplots()
    places = np.arange(len(ranked))
    axes.barh(places[: len(scores)], scores, height=0.75 if few else 1, color=BLUE)
    mean = f"mAP {np.mean(scores):.2f} % over {len(scores)} classes" if scores else "no class has a positive"
    axes.set(
        title=f"Average precision per class: {mean}", xlabel="average precision (%)", xlim=(0, 108 if few else 100)
    )
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xticks(range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)
    if few:
        axes.set_yticks(places, [f"{plain(row['class'])} ({row['positives']:,})" for row in ranked], fontsize=9)
        axes.set_ylabel("class (number of positives)")
        for place, row in zip(places, ranked, strict=True):
            text = "no positive in this set" if row["AP"] is None else f"{row['AP']:.1f}"
            colour = GREY if row["AP"] is None else "black"
            axes.text((row["AP"] or 0) + 1, place, text, va="center", fontsize=8, color=colour)
    else:
        axes.set_ylabel("classes, best first")
    return save(figure, path)
