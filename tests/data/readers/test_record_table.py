import copy
import json
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from imgcls.data.dataset import check_labels, to_dataset
from imgcls.data.readers.record_table import build_table
from imgcls.errors import UserError

SETS = {
    "names": [
        {"file_name": "a/é 1.png", "image_id": 7, "label": 2, "class": "dög"},
        {"file_name": "a/b/2.png", "image_id": -300, "label": 0, "class": "cat"},
        {"file_name": "/abs/日本/3.png", "image_id": "two", "label": 2, "class": None},
        {"file_name": "4.png", "label": 0},
    ],
    "indices": [{"file_name": f"{i % 3}/{i}", "label": i} for i in range(200)],
    "several labels": [
        {"file_name": "a.png", "labels": [1, 0], "class": ["b", "a"]},
        {"file_name": "b.png", "labels": [], "class": []},
        {"file_name": "b", "labels": []},
        {"file_name": "c.png", "labels": [1], "image_id": 3},
    ],
    "no labels": [{"file_name": "a.png", "labels": []}, {"file_name": "b.png", "labels": [], "class": []}],
    "more keys": [
        {"file_name": "a", "label": 0, "height": 4, "box": [1.5, {"x": None}], "flags": "é"},
        {"file_name": "b", "label": 0},
        {"file_name": "c", "label": 0, "image_id": "x", "": True},
    ],
    "odd ids": [
        {"file_name": str(i), "label": 0, "image_id": image_id}
        for i, image_id in enumerate([2**63 - 1, -(2**63), 2**63, "2", 2, "\ud800", "", -1, -2, 10**40])
    ],
    "odd file names": [
        {"file_name": name, "label": 0}
        for name in ("/", "/x", "a//b", "a/", "\udce9/\udcff.png", "a\\b", " ", "\0", "x")
    ],
}


def expected(records, folder):
    """The expected records, made without a table."""
    records = copy.deepcopy(records)
    for record in records:
        record.setdefault("image_id", record["file_name"])
        record["file_name"] = os.path.join(folder, record["file_name"])
    return records


def batches_of(records, size=3):
    records = copy.deepcopy(records)
    return [records[i : i + size] for i in range(0, len(records), size)]


def table_of(records, source="fol der/x.json"):
    return build_table(batches_of(records), source).records


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("folder", ["fol der", ""])
def test_every_record_is_kept(name, folder):
    table = table_of(SETS[name], os.path.join(folder, "x.json"))
    wanted = expected(SETS[name], folder)
    assert list(table) == wanted and len(table) == len(wanted)
    for mine, other in zip(table, wanted, strict=True):
        assert [type(mine[key]) for key in other] == [type(value) for value in other.values()]
        json.dumps(mine)


def test_indexing_and_slicing_as_in_a_list():
    table, wanted = table_of(SETS["indices"]), expected(SETS["indices"], "fol der")
    assert table[-1] == wanted[-1] and table[np.int64(5)] == wanted[5]
    assert table[1:190:60] == wanted[1:190:60] and table[::-1] == wanted[::-1]
    for index in (200, -201):
        with pytest.raises(IndexError):
            table[index]


def test_changing_a_record_does_not_change_the_table():
    table = table_of(SETS["several labels"])
    table[0]["labels"].append(9)
    table[0]["class"][0] = "z"
    assert table[0] == expected(SETS["several labels"], "fol der")[0]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("names", {0: 2, 2: 2}), ("several labels", {0: 1, 1: 2}), ("no labels", {})],
)
def test_label_counts(name, counts):
    found = table_of(SETS[name]).label_counts()
    assert isinstance(found, Counter) and found == counts
    assert all(type(label) is type(count) is int for label, count in found.items())


@pytest.mark.parametrize("name", ["names", "several labels", "no labels"])
def test_relabelled(name):
    mapping = [300, 5, 1]
    table = table_of(SETS[name])
    mapped = table.relabelled(mapping)
    wanted = expected(SETS[name], "fol der")
    for record in wanted:
        if "labels" in record:
            record["labels"] = [mapping[label] for label in record["labels"]]
        else:
            record["label"] = mapping[record["label"]]
    assert list(mapped) == wanted
    assert mapped.columns["file"] is table.columns["file"]
    assert list(table) == expected(SETS[name], "fol der"), "the first table is unchanged"


def test_relabelled_without_a_label_for_unused_classes():
    assert table_of(SETS["names"]).relabelled([1, None, 0]).label_counts() == {0: 2, 1: 2}


def test_mapping_and_checks_of_to_dataset():
    raw = build_table(batches_of(SETS["names"]), "x.json")
    dataset = to_dataset("test", raw, ["cat", "dög"])
    assert [record["label"] for record in dataset.records] == [1, 0, 1, 0]
    check_labels(dataset, 2, multi_label=False)
    with pytest.raises(UserError, match="has the class dög, which the training set lacks"):
        to_dataset("test", raw, ["cat"])


def test_no_object_for_each_record():
    records = [{"file_name": f"some folder/{i}.png", "label": i % 10} for i in range(20_000)]
    table = build_table([records], "x.json").records
    assert sum(column.nbytes for column in table.columns.values()) < 20_000 * 20
    assert all(not column.dtype.hasobject for column in table.columns.values())
    assert list(pickle.loads(pickle.dumps(table))) == list(table)


def record(number, **more):
    return {"file_name": f"{number}.png", "label": 0, **more}


def test_nothing_is_read_after_the_first_invalid_batch():
    taken = []

    def batches():
        for number in range(5):
            taken.append(number)
            yield [record(2 * number), record(2 * number + 1) if number < 2 else {"label": 0}]

    with pytest.raises(UserError, match=r'^x\.json: record 6: needs a "file_name", got None'):
        build_table(batches(), "x.json")
    assert taken == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([4, 5, 4], r"records 1 and 3 have the same image_id 4;"),
        (["a", 1, 2, "a", 1], r"records 1 and 4 have the same image_id 'a';"),
        ([10**30, 1, 10**30], rf"records 1 and 3 have the same image_id {10**30};"),
        ([1, "2.png", None], r"records 2 and 3 have the same image_id '2\.png';"),
    ],
)
def test_a_repeated_image_id(ids, message):
    records = [record(n) if image_id is None else record(n, image_id=image_id) for n, image_id in enumerate(ids)]
    with pytest.raises(UserError, match=rf"^some/x\.json: {message} each image of a set needs an id of its own$"):
        build_table([records[:2], records[2:]], "some/x.json")


def test_ids_with_equal_hashes_are_not_equal():
    assert hash(-1) == hash(-2) and hash(2**61 - 1) == hash(0)
    ids = [-1, -2, 0, 2**61 - 1, "0", "-1"]
    table = build_table([[record(n, image_id=image_id) for n, image_id in enumerate(ids)]], "x.json").records
    assert [r["image_id"] for r in table] == ids


def test_no_records():
    with pytest.raises(UserError, match=r"^x\.json: has no records$"):
        build_table(iter(()), "x.json")
