"""The report of one run: a table of its metrics, and figures."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.report.class_charts import draw_ap_bars, draw_confusion_matrix
from imgcls.report.curves import draw_curves
from imgcls.report.figure import label_classes
from imgcls.report.grid import draw_grid

# Result file of each task, as the evaluators write it.
_FILES = {"accuracy": "accuracy.json", "multilabel": "multilabel.json"}
_NO_RESULTS = "no test set was evaluated: set DATASETS.TEST and evaluate the run to get metrics and the other figures"


@dataclass
class Results:
    """The results on one test set.

    Attributes:
        folder: folder of its files.
        task: ``"accuracy"`` or ``"multilabel"``.
        content: its JSON: ``"metrics"``, ``"num_images"``, ``"per_class"``.
    """

    folder: Path
    task: str
    content: dict[str, Any]


@dataclass
class Report:
    """Result of :func:`write_report`.

    Attributes:
        source: the folder that the results were read from; ``OUTPUT_DIR`` where no test set was evaluated.
        table: the metrics as lines of text, or what to do to get them.
        figures: paths of the curves and, where a test set was evaluated, of the confusion matrix (multi-label: AP
            bars) and the grid of test images.
    """

    source: Path
    table: str
    figures: list[Path]


def write_report(output_dir: str | Path) -> Report:
    """Draws the figures of a run into ``OUTPUT_DIR/report``.

    Args:
        output_dir: the run's ``OUTPUT_DIR``, with ``metrics.json`` and, where a test set was evaluated, ``inference/``.

    Raises:
        UserError: a file of the run is missing or cannot be read, or a figure cannot be written.
    """
    output_dir = Path(output_dir)
    results = find_results(output_dir)
    folder = output_dir / "report"
    figures = [draw_curves(output_dir / "metrics.json", folder / "curves.png")]
    if results is None:
        return Report(output_dir, _NO_RESULTS, figures)
    per_class = results.content["per_class"]
    labels = label_classes([row["class"] for row in per_class])
    if results.task == "accuracy":
        matrix = results.folder / "confusion_matrix.csv"
        figures.append(draw_confusion_matrix(matrix, folder / "confusion_matrix.png", labels))
    else:
        figures.append(draw_ap_bars(per_class, folder / "average_precision.png", labels))
    figures.append(draw_grid(results.folder / "predictions.csv", folder / "predictions.png", labels))
    return Report(results.folder, metrics_table(results), figures)


def find_results(output_dir: Path) -> Results | None:
    """Reads the results in ``inference/``, or after several test sets, in its first sub-folder that has results.

    Returns:
        None where there are no results.

    Raises:
        UserError: the folder is missing, or the JSON is damaged.
    """
    if not output_dir.is_dir():
        raise UserFileNotFoundError(f"{output_dir}: no such folder; give the OUTPUT_DIR of a training run")
    inference = output_dir / "inference"
    for folder in [inference, *sorted(path for path in inference.glob("*") if path.is_dir())]:
        found = [task for task, name in _FILES.items() if (folder / name).is_file()]
        if found:
            # A folder that was used with both kinds of head has both files; this run wrote the newer one.
            task = max(found, key=lambda task: (folder / _FILES[task]).stat().st_mtime)
            return Results(folder, task, _read_json(folder / _FILES[task]))
    return None


def metrics_table(results: Results) -> str:
    """Formats the metrics on one test set as aligned lines of text."""
    rows = [(_title(name), _percent(value)) for name, value in results.content["metrics"].items()]
    width = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{title:<{width[0]}}  {value:>{width[1]}}" for title, value in rows]
    return "\n".join([*lines, f"on {results.content['num_images']:,} test images"])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("metrics", "num_images", "per_class")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result file of imgcls; evaluate the run again to write it") from error


def _title(name: str) -> str:
    if top := re.fullmatch(r"top(\d+)", name):
        return f"top-{top[1]} accuracy"
    words = name.split("_")
    return f"{words[0]} ({words[1]})" if words[-1] in ("micro", "macro") else " ".join(words)


def _percent(value: float | None) -> str:
    return "- %" if value is None else f"{value:.2f} %"
