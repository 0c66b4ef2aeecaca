"""Three ways to load a large data set, tested with a small one."""

import json
import sys

import pytest
from benchmark import index as module
from benchmark.compare import Budget
from benchmark.index import CACHED, DETECTRON2, FILE, INDEX, JSON, compare_index, write_records
from benchmark.index_probe import load_with_detectron2, load_with_imgcls

from imgcls.data.catalog import get_dataset
from imgcls.data.readers.table_index import read_index
from imgcls.errors import UserFileNotFoundError


def test_the_file_has_the_form_of_imagenets(tmp_path):
    path = tmp_path / FILE
    write_records(path, 3000)
    records = json.loads(path.read_text())
    assert len(records) == 3000 and len({record["file_name"] for record in records}) == 3000
    assert {record["label"] for record in records} == set(range(1000))
    assert records[0] == {
        "file_name": "ILSVRC2012_img_train/n01440764/n01440764_0.JPEG",
        "image_id": 1,
        "label": 0,
        "class": "n01440764",
    }
    assert len(get_dataset(f"json:{path}").classes) == 1000


def test_each_candidate_is_probed_in_every_round(tmp_path, monkeypatch):
    write_records(tmp_path / FILE, 2000)
    calls = []

    def probe(how, path, cache):
        if cache and not calls:  # fills the cache before the first round
            return {}
        raw = read_index(str(path))
        calls.append((how, raw is not None, cache != ""))
        assert json.loads(path.read_text())[1999]["image_id"] == 2000
        return {"seconds": len(calls), "kept": 0.0, "peak": 10 * len(calls), "worker": 5.0}

    monkeypatch.setattr(module, "_probe", probe)
    tables = compare_index(str(tmp_path), Budget(2))
    way_index_cache = [
        ("detectron2", False, False),
        ("imgcls", False, False),
        ("imgcls", False, True),
        ("imgcls", True, False),
    ]
    assert calls == way_index_cache * 2
    assert [table.unit for table in tables] == ["s", "MB", "MB", "MB"]
    assert tables[0].values == {DETECTRON2: [1, 5], JSON: [2, 6], CACHED: [3, 7], INDEX: [4, 8]}
    assert tables[2].values[INDEX] == [40, 80]
    assert [table.references for table in tables] == [[DETECTRON2], [], [], []]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # no index appears in the user's folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_probe_measures_in_a_process_of_its_own(tmp_path, monkeypatch):
    """Whatever the working folder is, it finds this package and the benchmark."""
    write_records(tmp_path / FILE, 1500)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    result = module._probe("imgcls", tmp_path / FILE, "")
    assert set(result) == {"seconds", "kept", "peak", "worker"}
    assert result["seconds"] > 0 and result["worker"] > 1


def test_both_loading_functions_return_the_same_records(tmp_path):
    path = tmp_path / FILE
    write_records(path, 1500)
    theirs, ours = load_with_detectron2(str(path)), load_with_imgcls(str(path))
    assert len(theirs) == len(ours) == 1500
    for index in (0, 700, 1499):
        assert ours[index]["file_name"] == str(tmp_path / theirs[index]["file_name"])
        assert ours[index]["label"] == theirs[index]["label"]


def test_a_folder_without_the_file_is_refused(tmp_path):
    with pytest.raises(UserFileNotFoundError, match=rf"--data {tmp_path}: no {FILE}"):
        compare_index(str(tmp_path), Budget(1))
