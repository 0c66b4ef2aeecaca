"""Two gloo processes read the same datasets."""

import json
import os
from datetime import timedelta

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torch import distributed, multiprocessing

from imgcls.data.catalog import read_datasets
from imgcls.data.shards.pack import pack_dataset

RECORDS = [{"file_name": f"{i}.png", "label": i % 2, "class": "ab"[i % 2]} for i in range(4)]
RENAMED = [{**record, "class": record["class"].upper()} for record in RECORDS]
SWAPPED = [*RECORDS[:2], {**RECORDS[2], "label": 1, "class": "b"}, {**RECORDS[3], "label": 0, "class": "a"}]
# The content of ``~/NAME.json`` for rank 1; rank 0 has RECORDS.
JSON_FILES = {"same": RECORDS, "shorter": RECORDS[:3], "renamed": RENAMED, "swapped": SWAPPED, "damaged": {}}


def registered():
    assert distributed.get_rank() == 0, "only rank 0 calls the user's function"
    return [dict(record) for record in RECORDS]


def failing():
    raise KeyError("x")


def not_picklable():
    return [{**RECORDS[0], "function": lambda: None}]


FUNCTIONS = (registered, failing, not_picklable)


def work(rank, root):
    """Reads all sets, and writes the outcomes and the folders that this process has scanned to a file."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{root}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    os.environ["HOME"] = f"{root}/home{rank}"
    for function in FUNCTIONS:
        DatasetCatalog.register(function.__name__, function)
    scanned, scandir = [], os.scandir
    os.scandir = lambda path: (scanned.append(os.path.relpath(path, root)), scandir(path))[1]
    names = {
        "folder": f"folder:{root}/train",
        "shards": f"shards:{root}/packed",
        "missing": f"folder:{root}/missing",
        **{function.__name__: function.__name__ for function in FUNCTIONS},
        **{name: f"json:~/{name}.json" for name in JSON_FILES},
    }
    outcomes = {}
    for key, name in names.items():
        try:
            datasets = read_datasets([name], [name])
        except Exception as error:
            outcomes[key] = [type(error).__name__, str(error)]
        else:
            rows = [[record["image_id"], record["label"]] for record in datasets.train[0].records]
            outcomes[key] = [rows, datasets.classes, MetadataCatalog.get(name).classes]
    (root / f"{rank}.json").write_text(json.dumps({"outcomes": outcomes, "scanned": scanned}))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes wrote."""
    root = tmp_path_factory.mktemp("distributed")
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (4, 4)).save(root / "train" / name / f"{number}.png")
    pack_dataset(f"folder:{root}/train", f"{root}/packed")
    for name, content in JSON_FILES.items():
        for rank in (0, 1):
            path = root / f"home{rank}" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content if rank else RECORDS))
    multiprocessing.start_processes(work, (root,), 2, start_method="fork")
    return [json.loads((root / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_every_rank_gets_the_same_outcome(ranks):
    assert ranks[0]["outcomes"] == ranks[1]["outcomes"]


def test_only_rank_0_scans_folders(ranks):
    assert sorted(ranks[0]["scanned"]) == ["missing", "train", "train/a", "train/b"]
    assert ranks[1]["scanned"] == []


@pytest.mark.parametrize(("name", "images"), [("folder", 6), ("shards", 6), ("registered", 4), ("same", 4)])
def test_records_arrive_complete(ranks, name, images):
    rows, classes, published = ranks[1]["outcomes"][name]
    assert len(dict(rows)) == images and published == classes == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing", "UserFileNotFoundError", "/missing: no such folder"),
        ("failing", "RuntimeError", "failing: rank 0 cannot read it: KeyError('x')"),
        ("not_picklable", "RuntimeError", "not_picklable: rank 0 cannot read it: "),
        ("damaged", "UserError", "rank 1: "),
        (
            "shorter",
            "UserError",
            "the number of images must be the same for all processes, but it is 4 for rank 0 and 3",
        ),
        ("renamed", "UserError", 'the classes must be the same for all processes, but it is ["a", "b"] for rank 0'),
        ("swapped", "UserError", "image ids and labels must be the same for all processes"),
    ],
)
def test_every_rank_raises_the_same_error(ranks, name, kind, message):
    for rank in ranks:
        found, text = rank["outcomes"][name]
        assert found == kind and message in text and "\n" not in text
