"""A training set of ImageNet's size: from its file to the first batch that could be read, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from benchmark.race import Table
from imgcls.data.readers.json_file import index_json
from imgcls.errors import UserFileNotFoundError

RECORDS = 1_281_167
CLASSES = 1000
FILE = "imagenet_detectron2_train.json"
# What the probe tells, and how it is headed.
_TABLES = {
    "seconds": ("until the loader is built", "s"),
    "kept": ("memory of the main process after it, above before (PSS)", "MB"),
    "peak": ("peak of the main process on the way, above before (RSS)", "MB"),
    "worker": ("memory of a worker that has read records all over the set (USS)", "MB"),
}
DETECTRON2, JSON, INDEX = "detectron2: json.load, DatasetFromList", "imgcls, JSON", "imgcls, index"


def race_index(data: str | None, rounds: int, records: int = RECORDS) -> list[Table]:
    """Seconds and memory of detectron2's way, of ours from the JSON, and of ours from its index.

    Args:
        data: a folder with ImageNet's training JSON; None makes a file of the same size.
        rounds: measured turns of each candidate.
        records: in the file that is made.

    Raises:
        UserError: no such file, or no place to write.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, indexed = Path(folder, "plain", FILE), Path(folder, "indexed", FILE)
        for path in (plain, indexed):
            path.parent.mkdir()
        if data is None:
            write_records(plain, records)
        elif Path(data, FILE).is_file():
            plain.symlink_to(Path(data, FILE).resolve())
        else:
            raise UserFileNotFoundError(
                f"--data {data}: has no {FILE}; make it with python tools/make_imagenet_json.py"
            )
        indexed.symlink_to(plain.resolve())
        index_json(str(indexed))
        runs = {DETECTRON2: ("detectron2", plain), JSON: ("imgcls", plain), INDEX: ("imgcls", indexed)}
        told: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        for _ in tqdm(range(rounds), desc="index", disable=None):
            for name, (how, path) in runs.items():
                told[name].append(_probe(how, path))
    return [
        Table(title, unit, {name: [one[key] for one in told[name]] for name in runs}, [DETECTRON2] * (key == "seconds"))
        for key, (title, unit) in _TABLES.items()
    ]


def write_records(path: Path, records: int) -> None:
    """Writes as many records as ``tools/make_imagenet_json.py`` writes them; no such images are there."""
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


def _probe(how: str, path: Path) -> dict[str, float]:
    root = Path(__file__).resolve().parents[2]
    places = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    out = subprocess.run(
        [sys.executable, "-m", "benchmark.index_probe", how, str(path)],
        env={**os.environ, "PYTHONPATH": places},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])
