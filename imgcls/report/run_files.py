"""Reads what the folder of a run holds: metrics, results of each test set, config, and versions."""

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from imgcls.checkpoint.handoff_proof import PROOF
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.report.curves import read_history

# Result file of each task, as the evaluators write it.
_FILES = {"accuracy": "accuracy.json", "multilabel": "multilabel.json"}
_HANDOFF = ("checkpoint", "checkpoint_sha256", "file", "sha256", "detector", "tensors", "left_out")
_AGAIN = "evaluate the run again to write it"
_VERSIONS = ("Python", "PyTorch", "torchvision", "detectron2", "numpy", "cv2", "Pillow", "GPU available", "GPU 0")
# What the hand-off logs about a backbone, after comparing every tensor.
_PROOF = re.compile(r"^\[[^]]*\] \S+ INFO: (.*\b\d+/\d+ backbone tensors loaded.*)$", re.MULTILINE)


@dataclass
class Results:
    """The results on one test set.

    Attributes:
        folder: folder of its files.
        name: that folder below ``inference/``; empty for ``inference/`` itself.
        task: ``"accuracy"`` or ``"multilabel"``.
        content: its JSON: ``"metrics"``, ``"num_images"``, ``"per_class"``.
    """

    folder: Path
    name: str
    task: str
    content: dict[str, Any]

    @property
    def path(self) -> Path:
        """Its JSON, the last file that an evaluation writes."""
        return self.folder / _FILES[self.task]

    @property
    def classes(self) -> list[str]:
        """The class names, index = label."""
        return [row["class"] for row in self.content["per_class"]]

    def read_predictions(self) -> list[dict[str, str]]:
        """The rows of ``predictions.csv``.

        Raises:
            UserError: the file is missing, empty or damaged.
        """
        return read_predictions(self.folder / "predictions.csv")

    def read_confusion_matrix(self) -> NDArray[np.int64]:
        """Counts ``(K, K)`` with a row for each true class.

        Raises:
            UserError: the file is missing or is not a square table of counts of the classes.
        """
        return read_confusion_matrix(self.folder / "confusion_matrix.csv", len(self.classes))

    def read_probabilities(self) -> NDArray[np.float32] | None:
        """``(N, K)`` in the order of ``predictions.csv``; None where they were not saved.

        Raises:
            UserError: the file is damaged, or of another evaluation.
        """
        path = self.folder / "probabilities.npy"
        if not path.is_file():
            return None
        try:
            probabilities = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
        shape = (self.content["num_images"], len(self.classes))
        if probabilities.shape != shape:
            raise UserError(f"{path}: has the shape {probabilities.shape} and not {shape}; {_AGAIN}")
        return probabilities


@dataclass
class RunFiles:
    """What a run has left in its folder.

    Attributes:
        folder: ``OUTPUT_DIR``.
        history: scalars by iteration, from ``metrics.json``.
        results: one for each test set, that of ``inference/`` itself first.
        config: ``config.yaml`` as plain dicts; empty where there is none.
        versions: of Python and the main packages, from the log; empty where it does not say.
        proof: the last line of the hand-off in the log, or empty.
        handoff: ``handoff.json`` of ``imgcls export-backbone``; empty where there is none.
    """

    folder: Path
    history: dict[int, dict[str, Any]]
    results: list[Results]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    proof: str = ""
    handoff: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a config key such as ``"SOLVER.MAX_ITER"``."""
        node: Any = self.config
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    @property
    def seconds(self) -> float:
        """Time of all iterations in ``metrics.json``, without evaluation and checkpoints."""
        total, before = 0.0, -1
        for iteration, scalars in self.history.items():
            if "time" in scalars:
                total += scalars["time"] * (iteration - before)
                before = iteration
        return total


def read_run(output_dir: Path) -> RunFiles:
    """Reads a run's folder.

    Raises:
        UserError: the folder or ``metrics.json`` is missing, or a file is damaged.
    """
    if not output_dir.is_dir():
        raise UserFileNotFoundError(f"{output_dir}: no such folder; give the OUTPUT_DIR of a training run")
    log = _read_log(output_dir / "log.txt")
    proofs = _PROOF.findall(log)
    return RunFiles(
        output_dir,
        read_history(output_dir / "metrics.json"),
        find_results(output_dir),
        _read_config(output_dir / "config.yaml"),
        _read_versions(log),
        proofs[-1] if proofs else "",
        _read_handoff(output_dir / PROOF),
    )


def find_results(output_dir: Path) -> list[Results]:
    """Reads the results in ``inference/`` and in the folders below it.

    Raises:
        UserError: a JSON is damaged.
    """
    inference = output_dir / "inference"
    found = []
    for folder in [inference, *sorted(path for path in inference.rglob("*") if path.is_dir())]:
        tasks = [task for task, name in _FILES.items() if (folder / name).is_file()]
        if tasks:
            # A folder that was used with both kinds of head has both files; this run wrote the newer one.
            task = max(tasks, key=lambda task: (folder / _FILES[task]).stat().st_mtime)
            name = folder.relative_to(inference).as_posix() if folder != inference else ""
            found.append(Results(folder, name, task, _read_json(folder / _FILES[task])))
    return found


def read_predictions(path: Path) -> list[dict[str, str]]:
    """Reads a table with one row for each image.

    Raises:
        UserError: it is missing, empty or damaged.
    """
    header, *rows = _read_csv(path)
    if any(len(row) != len(header) for row in rows):
        raise UserError(f"{path}: a row has another length than the header; {_AGAIN}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_confusion_matrix(path: Path, num_classes: int) -> NDArray[np.int64]:
    """Reads counts ``(K, K)``, see ``Results.read_confusion_matrix``."""
    _, *rows = _read_csv(path)
    try:
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
    except ValueError as error:
        raise UserError(f"{path}: not a table of counts; {_AGAIN}") from error
    if counts.shape != (num_classes, num_classes):
        raise UserError(f"{path}: not a table of {num_classes} x {num_classes} counts; {_AGAIN}")
    return counts


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError as error:
        raise UserFileNotFoundError(f"{path}: no such file; {_AGAIN}") from error
    except csv.Error as error:
        raise UserError(f"{path}: {error}; {_AGAIN}") from error
    if len(rows) < 2:
        raise UserError(f"{path}: has no rows; {_AGAIN}")
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        return content | {key: content[key] for key in ("metrics", "num_images", "per_class")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result file of imgcls; {_AGAIN}") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML; remove it, or restore the file of the run") from error
    return config if isinstance(config, dict) else {}


def _read_handoff(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in _HANDOFF}
    except OSError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged; remove it, or run imgcls export-backbone again") from error


def _read_log(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_versions(log: str) -> dict[str, str]:
    block = log.rpartition("Environment info:")[2]
    versions = {}
    for name in _VERSIONS:
        if match := re.search(rf"^{re.escape(name)} {{2,}}([^@\n]+)", block, re.MULTILINE):
            versions[name] = match[1].strip()
    return versions
