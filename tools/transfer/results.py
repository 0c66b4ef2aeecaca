"""The transfer experiment: scores of detectors from a handed-over backbone and from random weights, side by side."""

import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.report.curves import read_history
from imgcls.report.figure import new_figure, save
from transfer.detections import draw_image, drop_covered_labels

ARMS = {"handoff": "handed-over backbone", "random": "random weights"}
METRICS = ("AP", "AP50")
_COLUMNS, _ROWS = 4, 2
# Boxes that are less sure than this would cover the image.
_SCORE = 0.3
_ADVICE = "run scripts/transfer_experiment.sh to its end"


def read_scores(folder: Path) -> dict[str, dict[str, list[float]]]:
    """``{"handoff": {"AP": [one a seed], "AP50": [...]}, "random": ...}``, 0 to 100, seeds in rising order.

    Raises:
        ValueError: a run is missing, has no result, or the two arms have other seeds.
    """
    runs = {arm: _find_runs(folder, arm) for arm in ARMS}
    seeds = {arm: list(runs[arm]) for arm in ARMS}
    if not seeds["handoff"] or seeds["handoff"] != seeds["random"]:
        raise UserError(
            f"{folder} has runs handoff-{seeds['handoff']} and random-{seeds['random']}; "
            f"the same seeds of both are wanted: {_ADVICE}"
        )
    results = {arm: [_last_result(run / "metrics.json") for run in runs[arm].values()] for arm in ARMS}
    return {arm: {metric: [_score(run, metric) for run in results[arm]] for metric in METRICS} for arm in ARMS}


def table_rows(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """A Markdown table: mean and standard deviation over the seeds, and each seed's value."""
    rows = ["| detector from | AP | AP50 | AP by seed |", "|---|---|---|---|"]
    for arm, title in ARMS.items():
        cells = [_spread(scores[arm][metric]) for metric in METRICS]
        rows.append(f"| {title} | {' | '.join(cells)} | {', '.join(f'{value:.1f}' for value in scores[arm]['AP'])} |")
    return rows


def draw_detections(folder: Path, path: Path) -> Path:
    """Draws the first test canvases with what each arm's first seed found.

    Args:
        folder: of the experiment, as ``read_scores`` takes it.
        path: the PNG to write.

    Raises:
        ValueError: the canvases or the detections on them are not there.
    """
    records = DatasetCatalog.get("canvas_test")[: _COLUMNS * _ROWS]
    names = MetadataCatalog.get("canvas_test").thing_classes
    figure = new_figure(2.6 * _COLUMNS, 0.6 + 2.8 * _ROWS * len(ARMS))
    for part, arm in zip(figure.subfigures(len(ARMS), 1), ARMS, strict=True):
        run, *_ = _find_runs(folder, arm).values()
        found = _read_detections(run / "inference" / "coco_instances_results.json")
        part.suptitle(f"{ARMS[arm]}: grey what is there, green found, red wrong")
        for axes in part.subplots(_ROWS, _COLUMNS).flat:
            axes.set_axis_off()
        for axes, record in zip(part.axes, records, strict=False):
            draw_image(axes, record, found.get(record["image_id"], []), names)
    drop_covered_labels(figure)
    return save(figure, path)


def _find_runs(folder: Path, arm: str) -> dict[int, Path]:
    """The folders of an arm's runs that have begun, by their seed."""
    runs = {path.parent.name.removeprefix(f"{arm}-"): path.parent for path in folder.glob(f"{arm}-*/metrics.json")}
    return dict(sorted((int(seed), run) for seed, run in runs.items() if seed.isdecimal()))


def _last_result(path: Path) -> dict[str, float]:
    results = [scalars for scalars in read_history(path).values() if "bbox/AP" in scalars]
    if not results:
        raise UserError(f"{path}: has no result of an evaluation; {_ADVICE}")
    return results[-1]


def _score(result: dict[str, float], name: str) -> float:
    """detectron2 writes NaN where nothing at all was detected; precision at every recall is 0 then."""
    value = result[f"bbox/{name}"]
    return 0.0 if math.isnan(value) else value


def _read_detections(path: Path) -> dict[int, list[dict[str, Any]]]:
    if not path.is_file():
        raise UserFileNotFoundError(f"{path} is not there; {_ADVICE}")
    by_image: dict[int, list[dict[str, Any]]] = {}
    for box in json.loads(path.read_text(encoding="utf-8")):
        if box["score"] >= _SCORE:
            by_image.setdefault(box["image_id"], []).append(box)
    return by_image


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
