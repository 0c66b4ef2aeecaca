"""The transfer experiment: scores of detectors from a handed-over backbone and from random weights, side by side."""

import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from imgcls.data.decode import read_image
from imgcls.errors import UserError, UserFileNotFoundError

from .figure import GREEN, GREY, RED, new_figure, save

ARMS = {"handoff": "handed-over backbone", "random": "random weights"}
METRICS = ("AP", "AP50")
_COLUMNS, _ROWS = 4, 2
# Boxes that are less sure than this would cover the picture.
_SCORE = 0.3


def read_scores(folder: Path) -> dict[str, dict[str, list[float]]]:
    """``{"handoff": {"AP": [one a seed], "AP50": [...]}, "random": ...}``, 0 to 100, seeds in rising order.

    Raises:
        ValueError: a run is missing, has no result, or the two arms have other seeds.
    """
    seeds = {arm: sorted(int(run.name.rpartition("-")[2]) for run in folder.glob(f"{arm}-*")) for arm in ARMS}
    if not seeds["handoff"] or seeds["handoff"] != seeds["random"]:
        raise UserError(
            f"{folder} has runs handoff-{seeds['handoff']} and random-{seeds['random']}; "
            "the same seeds of both are wanted: run scripts/transfer_experiment.sh to its end"
        )
    scores = {arm: [_last_result(folder / f"{arm}-{seed}" / "metrics.json") for seed in seeds[arm]] for arm in ARMS}
    return {arm: {metric: [_score(run, metric) for run in runs] for metric in METRICS} for arm, runs in scores.items()}


def table_rows(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """A Markdown table: mean and standard deviation over the seeds, and each seed's value."""
    rows = ["| detector from | AP | AP50 | AP by seed |", "|---|---|---|---|"]
    for arm, title in ARMS.items():
        cells = [_spread(scores[arm][metric]) for metric in METRICS]
        rows.append(f"| {title} | {' | '.join(cells)} | {', '.join(f'{value:.1f}' for value in scores[arm]['AP'])} |")
    return rows


def draw_detections(folder: Path, path: Path) -> Path:
    """Draws the first test canvases with what each arm found (first seed): true boxes grey, right ones green.

    A detection is right where its class and, at an IoU of 0.5, its place are.

    Args:
        folder: of the experiment.
        path: the PNG to write.
    """
    records = DatasetCatalog.get("canvas_test")[: _COLUMNS * _ROWS]
    names = MetadataCatalog.get("canvas_test").thing_classes
    figure = new_figure(2.6 * _COLUMNS, 0.8 + 2.9 * _ROWS * len(ARMS))
    for part, arm in zip(figure.subfigures(len(ARMS), 1), ARMS, strict=True):
        run = min(folder.glob(f"{arm}-*"), key=lambda run: int(run.name.rpartition("-")[2]))
        found = _read_detections(run / "inference" / "coco_instances_results.json")
        part.suptitle(f"{ARMS[arm]}: grey what is there, green found, red wrong")
        for axes in part.subplots(_ROWS, _COLUMNS).flat:
            axes.set_axis_off()
        for axes, record in zip(part.axes, records, strict=False):
            _draw_canvas(axes, record, found.get(record["image_id"], []), names)
    return save(figure, path)


def _draw_canvas(axes: Axes, record: dict[str, Any], found: list[dict[str, Any]], names: list[str]) -> None:
    axes.imshow(Image.fromarray(read_image(record["file_name"], "RGB")))
    for truth in record["annotations"]:
        _draw_box(axes, truth["bbox"], GREY, "")
    for box in found:
        label = box["category_id"] - 1  # COCO's ids start at 1
        right = any(
            label == truth["category_id"] and _iou(box["bbox"], truth["bbox"]) >= 0.5 for truth in record["annotations"]
        )
        _draw_box(axes, box["bbox"], GREEN if right else RED, f"{names[label]} {100 * box['score']:.0f} %")


def _draw_box(axes: Axes, box: list[float], colour: str, text: str) -> None:
    left, top, width, height = box
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=1.2 if text else 2.4))
    if text:
        axes.text(left, top - 2, text, fontsize=6, color="white", backgroundcolor=colour)


def _iou(one: list[float], other: list[float]) -> float:
    """Of two boxes ``(left, top, width, height)``."""
    sides = [max(0.0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def _read_detections(path: Path) -> dict[int, list[dict[str, Any]]]:
    by_image: dict[int, list[dict[str, Any]]] = {}
    for box in json.loads(_read(path)):
        if box["score"] >= _SCORE:
            by_image.setdefault(box["image_id"], []).append(box)
    return by_image


def _last_result(path: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in _read(path).splitlines()]
    results = [line for line in lines if "bbox/AP" in line]
    if not results:
        raise UserError(f"{path}: has no result of an evaluation; run scripts/transfer_experiment.sh to its end")
    return results[-1]


def _score(result: dict[str, float], name: str) -> float:
    """detectron2 writes NaN where nothing at all was detected; precision at every recall is 0 then."""
    value = result[f"bbox/{name}"]
    return 0.0 if math.isnan(value) else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserFileNotFoundError(f"{path} is not there; run scripts/transfer_experiment.sh to its end") from None


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
