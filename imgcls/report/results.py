"""The files that an evaluation left in a run's OUTPUT_DIR."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.errors import UserError, UserFileNotFoundError

# Result file of each task, as the evaluators write it.
_FILES = {"accuracy": "accuracy.json", "multilabel": "multilabel.json"}


@dataclass
class Results:
    """One test set's results.

    Attributes:
        folder: where its files are.
        task: ``"accuracy"`` or ``"multilabel"``.
        content: its JSON: ``"metrics"``, ``"num_images"``, ``"per_class"``.
    """

    folder: Path
    task: str
    content: dict[str, Any]


def find_results(output_dir: Path) -> Results:
    """Reads ``inference/``, or where several sets were tested the first of its sub-folders with results.

    Raises:
        UserError: there are none, or the JSON is damaged.
    """
    if not output_dir.is_dir():
        raise UserFileNotFoundError(f"{output_dir}: no such folder; give the OUTPUT_DIR of a finished run")
    inference = output_dir / "inference"
    folders = [inference, *sorted(path for path in inference.glob("*") if path.is_dir())]
    for folder in folders:
        found = [task for task, name in _FILES.items() if (folder / name).is_file()]
        if found:
            # A folder that was used for both kinds of head holds both; the later one is this run's.
            task = max(found, key=lambda task: (folder / _FILES[task]).stat().st_mtime)
            return Results(folder, task, _read_json(folder / _FILES[task]))
    raise UserFileNotFoundError(
        f"{inference}: no {' or '.join(_FILES.values())} in it; finish the training or run it with --eval-only first"
    )


def metrics_table(results: Results) -> str:
    """The metrics of one test set as aligned lines of text."""
    rows = [(_title(name), _percent(value)) for name, value in results.content["metrics"].items()]
    width = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{title:<{width[0]}}  {value:>{width[1]}}" for title, value in rows]
    return "\n".join([*lines, f"on {results.content['num_images']:,} test images"])


def read_csv(path: Path) -> list[list[str]]:
    """All rows of a table, header first.

    Raises:
        UserError: the file is missing or has no row below the header.
    """
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError as error:
        raise UserFileNotFoundError(f"{path}: no such file; evaluate again with --eval-only to write it") from error
    if len(rows) < 2:
        raise UserError(f"{path}: no rows in it; evaluate again with --eval-only to write it")
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("metrics", "num_images", "per_class")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result file of imgcls; evaluate again with --eval-only to write it") from error


def _title(name: str) -> str:
    if top := re.fullmatch(r"top(\d+)", name):
        return f"top-{top[1]} accuracy"
    words = name.split("_")
    return f"{words[0]} ({words[1]})" if words[-1] in ("micro", "macro") else " ".join(words)


def _percent(value: float | None) -> str:
    return "- %" if value is None else f"{value:.2f} %"
