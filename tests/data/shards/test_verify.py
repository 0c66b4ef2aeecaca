import json

import pytest

from imgcls.data.shards.pack import pack_dataset
from imgcls.data.shards.verify import verify_shards
from imgcls.errors import UserError


@pytest.fixture
def packed(photographs, tmp_path):
    pack_dataset(photographs(30), str(tmp_path / "out"), shard_size=15_000)
    return tmp_path / "out"


def change(path, at=700):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def refused(folder):
    with pytest.raises(UserError) as raised:
        verify_shards(str(folder), processes=2)
    return str(raised.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_packed_is_in_order(packed, processes):
    assert verify_shards(str(packed), processes) == 30


def test_one_changed_bit_is_found_and_the_image_named(packed):
    change(packed / "000001.tar")
    message = refused(packed)
    assert "2 problems" in message
    assert "000001.tar: its SHA-256 differ" in message
    assert "000001.tar/000001-000000.jpg: its checksum in the shard is wrong" in message


def test_all_problems_are_named(packed):
    (packed / "000001.tar").unlink()
    (packed / "000002.index").unlink()
    change(packed / "000003.index", at=-20)
    message = refused(packed)
    assert "000001.tar: No such file" in message and "000002.index: No such file" in message
    assert (
        "000003.index: damaged (its checksum does not match its content)" in message and "; and " not in message[-20:]
    )


def test_a_cut_shard(packed):
    data = (packed / "000000.tar").read_bytes()
    (packed / "000000.tar").write_bytes(data[: len(data) // 2])
    assert "the shard ends after" in refused(packed)


@pytest.mark.parametrize(("key", "value"), [("samples", 31), ("label_counts", {"0": 14, "1": 16})])
def test_wrong_counts(packed, key, value):
    index = json.loads((packed / "index.json").read_text())
    (packed / "index.json").write_text(json.dumps({**index, key: value}))
    assert "index.json: its counts differ from those of its shards" in refused(packed)


def test_an_unfinished_folder(packed):
    (packed / "index.json").unlink()
    assert "index.json: no such file" in refused(packed)
