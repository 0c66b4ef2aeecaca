import copy
import random

import pytest

from imgcls.data.readers.record_check import RecordCheck, check_records
from imgcls.errors import UserError

VALID = [{"file_name": f"{i}.png", "image_id": i, "label": i % 3, "class": "abc"[i % 3]} for i in range(12)]
# Changes that make a record invalid, or that only the check of single records accepts.
CHANGES = [
    {"file_name": ""},
    {"file_name": 3},
    {"label": -1},
    {"label": True},
    {"label": 1.0},
    {"label": None},
    {"labels": [0]},
    {"image_id": True},
    {"image_id": None},
    {"image_id": "text"},
    {"class": None},
    {"class": 3},
    {"class": ["a"]},
    {"class": "d"},
    {"label": 3},
    {"label": 3, "class": "d"},
    {"more": {}},
]


def outcome(check, batches):
    try:
        for batch in batches:
            check(batch)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("classes", [None, ["a", "b", "c", "d"]])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_batches_and_single_records_give_the_same_result(change, classes, size):
    records = copy.deepcopy(VALID)
    records[7].update(change)
    single, batched = copy.deepcopy(records), copy.deepcopy(records)
    slow, fast = RecordCheck("x", classes), RecordCheck("x", classes)
    wanted = outcome(slow._add_one, single)
    batches = [batched[i : i + size] for i in range(0, 12, size)]
    assert outcome(fast.add, batches) == wanted
    if wanted is None:
        assert batched == single
        assert outcome(fast.raw_dataset, [batched]) == outcome(slow.raw_dataset, [single])
        assert fast.names.__dict__ == slow.names.__dict__ and (fast.largest, fast.number) == (slow.largest, slow.number)


def test_contradicting_names_in_one_batch():
    """Also where labels and names are swapped, and the last pairs alone are consistent."""
    pairs = [(0, "a"), (1, "b"), (0, "b"), (1, "a")]
    for seed in range(10):
        random.Random(seed).shuffle(pairs)
        with pytest.raises(UserError, match=r"here and .* before"):
            check_records([{"file_name": str(i), "label": n, "class": c} for i, (n, c) in enumerate(pairs)], "x")


def test_contradicting_names_in_two_batches():
    check = RecordCheck("x")
    check.add([{"file_name": "1", "label": 0, "class": "a"}, {"file_name": "2", "label": 1, "class": "b"}])
    with pytest.raises(UserError, match="record 3: label 0 is 'b' here and 'a' before"):
        check.add([{"file_name": "3", "label": 0, "class": "b"}, {"file_name": "4", "label": 1, "class": "a"}])


def test_the_first_record_without_a_name_is_reported():
    records = [{"file_name": str(i), "label": i % 2} for i in range(4)]
    check = RecordCheck("x")
    check.add(records[:2])
    check.add([*records[2:], {"file_name": "5", "label": 0, "class": "a"}])
    with pytest.raises(UserError, match='record 2: label 1 has no "class" name'):
        check.raw_dataset([])


def test_uniform_records_are_not_checked_one_by_one(monkeypatch):
    monkeypatch.setattr(RecordCheck, "_add_one", None)
    check_records(copy.deepcopy(VALID), "x")
    check_records([{"file_name": "a", "label": 0}, {"file_name": "b", "label": 2}], "x")


def test_not_a_list():
    with pytest.raises(UserError, match=r"x: expected a list of records, got None \(NoneType\)"):
        check_records(None, "x")


def test_a_label_beyond_the_given_classes():
    with pytest.raises(UserError, match="has the label 2, but only 2 class names: 0 to 1"):
        check_records([{"file_name": "a", "label": 2}], "x", ["a", "b"])
