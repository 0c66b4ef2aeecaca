from dataclasses import replace
from itertools import pairwise

import pytest

from imgcls.data.shards.plan import Settings, checksum, read_plan, shard_bounds, shuffled, write_plan
from imgcls.errors import UserError

SETTINGS = Settings("folder:a", 256, 90, 1000, False, False, "abc")


def test_the_order_is_a_fixed_permutation():
    assert sorted(shuffled(1000)) == list(range(1000))
    # A packing that one version has started may be completed by the next.
    assert shuffled(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


@pytest.mark.parametrize(
    ("samples", "mean", "size", "lengths"),
    [(10, 100, 1000, [10]), (10, 100, 500, [5, 5]), (11, 100, 300, [2, 3, 3, 3]), (3, 100, 1, [1, 1, 1]),
     (3, 100, 10**9, [3]), (1, 1, 1, [1])],
)  # fmt: skip
def test_shards_have_equal_lengths(samples, mean, size, lengths):
    bounds = shard_bounds(samples, mean, size).tolist()
    assert bounds[0] == 0 and [b - a for a, b in pairwise(bounds)] == lengths


def test_the_checksum_covers_ids_labels_and_order():
    records = [{"image_id": 1, "label": 0}, {"image_id": 2, "label": 1}]
    others = [records[::-1], [{"image_id": "1", "label": 0}, records[1]], [{"image_id": 1, "labels": [0]}, records[1]]]
    assert len({checksum(r) for r in (records, *others)}) == 4
    assert checksum([{**r, "file_name": "moved"} for r in records]) == checksum(records)


def test_a_plan_is_read_back(tmp_path):
    assert read_plan(str(tmp_path), SETTINGS) is None
    write_plan(str(tmp_path), SETTINGS, [0, 3, 6])
    assert read_plan(str(tmp_path), SETTINGS) == [0, 3, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"short_side": 128}, "was started with short_side 256, but now it is short_side 128; use the same"),
     ({"source": "folder:b"}, "source 'folder:a', but now it is source 'folder:b'"),
     ({"content": "x"}, "other images or labels in the source; use")],
)  # fmt: skip
def test_other_settings_are_refused_and_named(tmp_path, change, message):
    folder = tmp_path / "out" / ".unfinished"
    folder.mkdir(parents=True)
    write_plan(str(folder), SETTINGS, [0, 3])
    with pytest.raises(UserError, match=message) as raised:
        read_plan(str(folder), replace(SETTINGS, **change))
    assert str(raised.value).startswith(f"{tmp_path / 'out'}: ")
