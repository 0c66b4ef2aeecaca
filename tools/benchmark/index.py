"""Loading a training set of ImageNet's size, in a new process: from its file to the first record that can be read."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark.compare import Budget, Table
from benchmark.report import Report
from imgcls.data.readers.json_file import index_json
from imgcls.errors import UserFileNotFoundError

RECORDS = 1_281_167
CLASSES = 1000
FILE = "imagenet_detectron2_train.json"
# What the probe prints, with title and unit.
_TABLES = {
    "seconds": ("until the loader is built", "s"),
    "kept": ("memory of the main process afterwards, above that before (PSS)", "MB"),
    "peak": ("peak of the main process meanwhile, above that before (RSS)", "MB"),
    "worker": ("memory of a worker that has read records all over the set (USS)", "MB"),
}
DETECTRON2 = "detectron2: json.load, DatasetFromList"
JSON, CACHED, INDEX = "imgcls, JSON, first time", "imgcls, JSON, cached", "imgcls, index"


def measure(args: argparse.Namespace) -> Report:
    """Measures seconds and memory.

    Raises:
        UserError: there is no such file, or the temporary folder cannot be written.
    """
    return Report("index", compare_index(args.data, Budget(args.rounds, 60 * args.minutes)))


def compare_index(data: str | None, budget: Budget, records: int = RECORDS) -> list[Table]:
    """Compares seconds and memory of detectron2's way, of ours from the JSON with and without cache, and of its index.

    ``data`` is a folder with ImageNet's training JSON; None makes a file with ``records`` records.

    Raises:
        UserError: there is no such file, or the temporary folder cannot be written.
    """
    rounds = budget.open_rounds("index")
    with tempfile.TemporaryDirectory() as folder:
        plain, indexed = Path(folder, "plain", FILE), Path(folder, "indexed", FILE)
        for path in (plain, indexed):
            path.parent.mkdir()
        if data is None:
            write_records(plain, records)
        elif Path(data, FILE).is_file():
            plain.symlink_to(Path(data, FILE).resolve())
        else:
            raise UserFileNotFoundError(f"--data {data}: no {FILE}; make it with python tools/make_imagenet_json.py")
        indexed.symlink_to(plain.resolve())
        index_json(str(indexed))
        cache = str(Path(folder, "cache"))
        _probe("imgcls", plain, cache)  # fills the cache
        runs = {
            DETECTRON2: ("detectron2", plain, ""),
            JSON: ("imgcls", plain, ""),
            CACHED: ("imgcls", plain, cache),
            INDEX: ("imgcls", indexed, ""),
        }
        results: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        for _ in rounds():
            for name, run in runs.items():
                results[name].append(_probe(*run))
    return [
        Table(
            title,
            unit,
            {name: [result[key] for result in results[name]] for name in runs},
            [DETECTRON2] if key == "seconds" else [],
            budget.planned,
        )
        for key, (title, unit) in _TABLES.items()
    ]


def write_records(path: Path, records: int) -> None:
    """Writes records in the form of ``tools/make_imagenet_json.py``; their images do not exist."""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(records):
            label = number * CLASSES // records
            name = f"n{1440764 + 13 * label:08d}"
            record = {
                "file_name": f"ILSVRC2012_img_train/{name}/{name}_{number % 20000}.JPEG",
                "image_id": number + 1,
                "label": label,
                "class": name,
            }
            file.write(("[" if number == 0 else ", ") + json.dumps(record))
        file.write("]")


def _probe(how: str, path: Path, cache: str) -> dict[str, float]:
    tools = Path(__file__).resolve().parents[1]
    search = os.pathsep.join(filter(None, (str(tools), str(tools.parent), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, "-m", "benchmark.index_probe", how, str(path)],
        env={**os.environ, "PYTHONPATH": search, "IMGCLS_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])
