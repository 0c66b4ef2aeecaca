"""Results of the transfer experiment: detectors from a handed-over backbone and from random weights, side by side."""

import math
from pathlib import Path
from statistics import mean, stdev

from figure import new_figure, save

from imgcls.errors import UserError
from imgcls.report.curves import read_history
from transfer.detections import ADVICE, draw_detections, read_detections, read_test_set

ARMS = {"handoff": "handed-over backbone", "random": "random weights"}
METRICS = ("AP", "AP50")
_COLUMNS, _ROWS = 4, 2


def read_scores(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Returns ``{"handoff": {"AP": [one per seed], "AP50": [...]}, "random": ...}``, 0 to 100, in order of seeds.

    Args:
        folder: output of the experiment, with a folder ``handoff-SEED`` and ``random-SEED`` for each seed.

    Raises:
        UserError: a run is missing or has no result, or the two arms have different seeds.
    """
    runs = {arm: find_runs(folder, arm) for arm in ARMS}
    seeds = {arm: list(runs[arm]) for arm in ARMS}
    if not seeds["handoff"] or seeds["handoff"] != seeds["random"]:
        raise UserError(
            f"{folder} has runs handoff-{seeds['handoff']} and random-{seeds['random']}; "
            f"expected the same seeds of both: {ADVICE}"
        )
    results = {arm: [last_result(run, "bbox/AP") for run in runs[arm].values()] for arm in ARMS}
    return {arm: {metric: [_score(result, metric) for result in results[arm]] for metric in METRICS} for arm in ARMS}


def table_rows(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """Returns a Markdown table: mean and standard deviation over the seeds, and the value of each seed."""
    rows = ["| detector from | AP | AP50 | AP by seed |", "|---|---|---|---|"]
    for arm, title in ARMS.items():
        cells = [_spread(scores[arm][metric]) for metric in METRICS]
        rows.append(f"| {title} | {' | '.join(cells)} | {', '.join(f'{value:.1f}' for value in scores[arm]['AP'])} |")
    return rows


def draw_arms(folder: Path, path: Path) -> Path:
    """Draws the first test images with the detections of each arm's first seed; returns ``path``.

    Args:
        folder: output of the experiment.
        path: the PNG to write.

    Raises:
        UserError: the test set or the detections do not exist.
    """
    records, names = read_test_set()
    figure = new_figure(2.6 * _COLUMNS, 0.6 + 2.8 * _ROWS * len(ARMS))
    for part, arm in zip(figure.subfigures(len(ARMS), 1), ARMS, strict=True):
        run, *_ = find_runs(folder, arm).values()
        found = read_detections(run)
        part.suptitle(f"{ARMS[arm]}: true boxes white, right detections green, wrong ones red")
        for axes in part.subplots(_ROWS, _COLUMNS).flat:
            axes.set_axis_off()
        for axes, record in zip(part.axes, records, strict=False):
            axes.imshow(draw_detections(record, found.get(record["image_id"], []), names))
    return save(figure, path)


def find_runs(folder: Path, arm: str) -> dict[int, Path]:
    """Returns the folders of an arm's runs that have written metrics, by seed, in rising order."""
    runs = {path.parent.name.removeprefix(f"{arm}-"): path.parent for path in folder.glob(f"{arm}-*/metrics.json")}
    return dict(sorted((int(seed), run) for seed, run in runs.items() if seed.isdecimal()))


def last_result(run: Path, key: str) -> dict[str, float]:
    """Returns the scalars of the last evaluation that has ``key``, and its ``"iteration"``.

    Raises:
        UserError: there is none.
    """
    path = run / "metrics.json"
    history = read_history(path).items()
    results = [{**scalars, "iteration": iteration} for iteration, scalars in history if key in scalars]
    if not results:
        raise UserError(f"{path}: has no result of an evaluation; {ADVICE}")
    return results[-1]


def _score(result: dict[str, float], name: str) -> float:
    """Turns NaN, which detectron2 writes if nothing was detected at all, into a precision of 0."""
    value = result[f"bbox/{name}"]
    return 0.0 if math.isnan(value) else value


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
