import hashlib
import importlib
import json
import os
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

import imgcls
from imgcls.data.catalog import get_dataset, read_datasets
from imgcls.data.dataset import label_counts
from imgcls.data.image import EncodedImage, read_bytes, read_image
from imgcls.data.shards import reader
from imgcls.data.shards.pack import pack_dataset
from imgcls.data.shards.reader import _OPEN_TABLES
from imgcls.data.shards.verify import verify_shards
from imgcls.errors import UserError

CLASSES = {"bird": 5, "cat": 20, "dog": 15}


@pytest.fixture
def packed(tmp_path, write_folder):
    """40 PNG files in 10 shards, kept byte for byte."""
    source = write_folder(tmp_path / "source", CLASSES)
    pack_dataset(f"folder:{source}", str(tmp_path / "out"), shard_size=24_500, processes=2)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 10
    return tmp_path / "out"


def change_table(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def change_index(packed, **changes):
    index = json.loads((packed / "index.json").read_text())
    (packed / "index.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize("pattern", ["/{000000..000009}.tar", "", "/"])
def test_all_records_of_the_source(packed, tmp_path, pattern):
    source, shards = get_dataset(f"folder:{tmp_path / 'source'}"), get_dataset(f"shards:{packed}{pattern}")
    assert shards.classes == source.classes and not shards.multi_label and shards.source == str(packed / "index.json")
    originals = {record["image_id"]: record for record in source.records}
    assert len(shards.records) == len(originals) == 40
    for record in shards.records:
        original = originals.pop(record["image_id"])
        assert record["label"] == original["label"]
        pixels = EncodedImage(read_bytes(record), record["file_name"]).pixels()
        assert (pixels == read_image(original["file_name"])).all()
    assert shards.records.label_counts() == {0: 5, 1: 20, 2: 15}


def test_the_file_name_is_that_of_the_member(packed):
    record = get_dataset(f"shards:{packed}/000003.tar").records[1]
    assert record["file_name"] == f"{packed}/000003.tar/000003-000001.png"


def test_some_of_the_shards(packed):
    some = get_dataset(f"shards:{packed}/{{000002..000005}}.tar")
    every = get_dataset(f"shards:{packed}")
    begin = sum(every.records.shard_sizes[:2])
    assert len(some.records) == sum(every.records.shard_sizes[2:6]) == len(list(some.records))
    assert [r["image_id"] for r in some.records] == [
        every.records[begin + i]["image_id"] for i in range(len(some.records))
    ]
    assert some.records.label_counts() == label_counts(list(some.records))
    assert some.records[-1] == some.records[len(some.records) - 1]
    assert some.records[1:4] == [some.records[i] for i in (1, 2, 3)]
    with pytest.raises(IndexError):
        some.records[len(some.records)]


def test_labels_follow_the_training_set_by_name(packed, tmp_path, write_folder):
    train = write_folder(tmp_path / "train", {"ape": 1, "bird": 1, "cat": 1, "cow": 1, "dog": 1})
    [test] = read_datasets([f"folder:{train}"], [f"shards:{packed}"]).test
    assert test.classes == ["ape", "bird", "cat", "cow", "dog"]
    assert all(test.classes[r["label"]] == r["image_id"].split("/")[0] for r in test.records)
    assert test.records.label_counts() == {1: 5, 2: 20, 4: 15}


def test_classes_that_training_lacks(packed, tmp_path, write_folder):
    train = write_folder(tmp_path / "train", {"cat": 1, "dog": 1})
    with pytest.raises(UserError, match="has the class bird, which the training set lacks"):
        read_datasets([f"folder:{train}"], [f"shards:{packed}"])


def test_class_names_are_those_of_the_source(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    records = [{"file_name": "a.png", "image_id": i, "label": i} for i in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    pack_dataset(f"json:{tmp_path / 'a.json'}", str(tmp_path / "out"))
    shards = get_dataset(f"shards:{tmp_path / 'out'}", classes=["x", "y", "z"])
    assert {r["image_id"]: r["label"] for r in shards.records} == {0: 0, 1: 1, 2: 2}
    with pytest.raises(UserError, match="has the label 2, which the training set lacks"):
        get_dataset(f"shards:{tmp_path / 'out'}", classes=["x", "y"])


def count_verifications(monkeypatch):
    """The names of the shards whose table was compared with its checksum."""
    verified = []
    read = reader.read_shard_table

    def counted(folder, entry, verify):
        if verify:
            verified.append(entry["name"])
        return read(folder, entry, verify)

    monkeypatch.setattr(reader, "read_shard_table", counted)
    return verified


def test_a_table_is_verified_once_even_if_it_is_opened_often(packed, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_TABLES", 3)
    verified = count_verifications(monkeypatch)
    records = get_dataset(f"shards:{packed}").records
    for _ in range(3):
        assert len([records[i] for i in range(len(records))]) == 40
    relabelled = records.relabelled([2, 1, 0])
    assert relabelled[0]["label"] == 2 - records[0]["label"]
    pickle.loads(pickle.dumps(records))[0]
    assert sorted(verified) == [f"{i:06d}.tar" for i in range(10)]


def test_a_table_that_changes_is_verified_again(packed, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_TABLES", 1)
    records = get_dataset(f"shards:{packed}").records
    list(records)
    change_table(packed / "000004.index")
    with pytest.raises(UserError, match=r"out/000004\.index: damaged"):
        list(records)


def test_few_tables_are_open(packed, monkeypatch):
    monkeypatch.setattr("imgcls.data.shards.reader._OPEN_TABLES", 3)
    records = get_dataset(f"shards:{packed}").records
    ids = {record["image_id"] for record in records}
    assert len(ids) == 40 and len(records._tables) == 3 < _OPEN_TABLES


def test_a_spawned_worker_opens_the_tables_itself(packed):
    records = get_dataset(f"shards:{packed}").records
    first = records[0]
    copy = pickle.loads(pickle.dumps(records))
    assert not copy._tables and copy[0] == first


def test_a_missing_index(packed):
    (packed / "index.json").unlink()
    with pytest.raises(UserError, match=r"out/index\.json: no such file"):
        get_dataset(f"shards:{packed}/000000.tar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"index\.json: damaged, not JSON"),
        ("[]", r'"format" is \'list\''),
        ('{"format": "x"}', r'"format" is \'x\''),
    ],
)
def test_a_damaged_index(packed, text, message):
    (packed / "index.json").write_text(text)
    with pytest.raises(UserError, match=message):
        get_dataset(f"shards:{packed}")


@pytest.mark.parametrize(
    "changes",
    [{"classes": 3}, {"shards": []}, {"shards": [{}]}, {"shards": [{"name": "../a.tar", "samples": 1, "bytes": 1}]}],
)
def test_an_index_with_wrong_content(packed, changes):
    change_index(packed, **changes)
    with pytest.raises(UserError, match=rf"index\.json: damaged in '{next(iter(changes))}'"):
        get_dataset(f"shards:{packed}")


@pytest.mark.parametrize("name", ["000004.tar", "000004.index"])
def test_a_missing_file(packed, name):
    (packed / name).unlink()
    with pytest.raises(UserError, match=rf"out/{name}: No such file or directory, but index.json lists it"):
        get_dataset(f"shards:{packed}")
    assert len(get_dataset(f"shards:{packed}/{{000000..000003}}.tar").records) > 10


def test_a_truncated_shard(packed):
    size = os.path.getsize(packed / "000004.tar")
    os.truncate(packed / "000004.tar", size - 1)
    with pytest.raises(UserError, match=rf"out/000004.tar: has {size - 1} bytes, but {size} according to index.json"):
        get_dataset(f"shards:{packed}")


def test_a_changed_table(packed):
    change_table(packed / "000004.index")
    records = get_dataset(f"shards:{packed}").records
    with pytest.raises(UserError, match=r"out/000004.index: damaged \(its checksum does not match its content\)"):
        list(records)


def test_a_table_of_another_packing(packed):
    (packed / "000004.index").write_bytes((packed / "000005.index").read_bytes())
    with pytest.raises(UserError, match=r"out/000004.index: its checksum is not that in index.json"):
        list(get_dataset(f"shards:{packed}").records)


def write_version_1(folder, multi_label):
    """Replaces the tables and the index by those of the first format version."""
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        records = get_dataset(f"shards:{folder}/{shard['name']}").records
        label = ("labels", "<i4", (2,)) if multi_label else ("label", "<i4")
        kinds = [("offset", "<i8"), ("size", "<i4"), ("crc32", "<u4"), label, ("image_id", "S40"), ("extension", "S4")]
        table = np.zeros(len(records), kinds)
        for i, record in enumerate(records):
            labels = [*record["labels"], -1, -1][:2] if multi_label else record["label"]
            extension = record["file_name"][-3:].encode()
            table[i] = *record["shard_slice"][1:], labels, json.dumps(record["image_id"]).encode(), extension
        path = folder / shard["name"].replace(".tar", ".npy")
        np.save(path, table)
        path.with_suffix(".index").unlink()
        del shard["table_crc32"]
        shard["table_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    change_index(folder, format="imgcls shards 1", shards=index["shards"])


@pytest.mark.parametrize("multi_label", [False, True])
def test_shards_of_format_version_1(packed, tmp_path, multi_label):
    if multi_label:
        records = [{"file_name": f"{p}", "image_id": i, "labels": [[], [1], [2, 0]][i % 3]} for i, p in
                   enumerate(sorted((tmp_path / "source").rglob("*.png")))]  # fmt: skip
        (tmp_path / "a.json").write_text(json.dumps(records))
        packed = tmp_path / "multi"
        pack_dataset(f"json:{tmp_path / 'a.json'}", str(packed), shard_size=24_500)
    expected = list(get_dataset(f"shards:{packed}").records)
    write_version_1(packed, multi_label)
    dataset = get_dataset(f"shards:{packed}")
    assert list(dataset.records) == expected
    assert dataset.records.label_counts() == label_counts(expected)
    assert verify_shards(str(packed)) == 40
    data = bytearray((packed / "000004.npy").read_bytes())
    data[-1] ^= 1
    (packed / "000004.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"000004.npy: damaged \(its SHA-256 is not that in index.json\)"):
        list(get_dataset(f"shards:{packed}").records)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "{000000..000010}.tar",
            r"out/000010.tar: index.json in this folder does not list this shard; it lists 000000.tar to 000009.tar",
        ),
        ("{0..5}.tar", r"out/0.tar: index.json in this folder does not list this shard"),
        ("{000000..999999999999}.tar", r"out/000010.tar: index.json"),
        ("{000003..000001}.tar", "the range is reversed"),
        ("*.tar", r"out/\*.tar: index.json in this folder does not list"),
    ],
)
def test_unknown_shards(packed, pattern, message):
    with pytest.raises(UserError, match=message):
        get_dataset(f"shards:{packed}/{pattern}")


def test_no_path(packed):
    with pytest.raises(
        UserError, match=r"shards:: the path is missing; expected .*shards:PATH/\{000000\.\.000127\}\.tar"
    ):
        get_dataset("shards:")


def test_reading_needs_no_webdataset(packed, monkeypatch):
    monkeypatch.setattr(imgcls, "data", imgcls.data)  # the modules are imported again below
    for name in [name for name in sys.modules if name.startswith("imgcls.data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    records = importlib.import_module("imgcls.data").get_dataset(f"shards:{packed}").records
    assert all(importlib.import_module("imgcls.data.image").read_bytes(record) for record in records)
