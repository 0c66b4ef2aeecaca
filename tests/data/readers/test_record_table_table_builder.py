import pytest

from imgcls.data.readers.record_table import build_table
from imgcls.errors import UserError


def record(number, **more):
    return {"file_name": f"{number}.png", "label": 0, **more}


def test_records_are_taken_one_after_the_other_up_to_the_first_bad_one():
    taken = []

    def records():
        for number in range(5):
            taken.append(number)
            yield record(number) if number < 2 else {"label": 0}

    with pytest.raises(UserError, match=r'^x\.json: record 3: needs a "file_name", got None'):
        build_table(records(), "x.json")
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
def test_an_image_id_that_comes_twice(ids, message):
    records = [record(n) if image_id is None else record(n, image_id=image_id) for n, image_id in enumerate(ids)]
    with pytest.raises(UserError, match=rf"^some/x\.json: {message} each image of a set needs an id of its own$"):
        build_table(records, "some/x.json")


def test_ids_with_equal_hashes_are_not_equal():
    assert hash(-1) == hash(-2) and hash(2**61 - 1) == hash(0)
    ids = [-1, -2, 0, 2**61 - 1, "0", "-1"]
    table = build_table([record(n, image_id=image_id) for n, image_id in enumerate(ids)], "x.json").records
    assert [r["image_id"] for r in table] == ids


def test_no_records():
    with pytest.raises(UserError, match=r"^x\.json: has no records$"):
        build_table(iter(()), "x.json")
