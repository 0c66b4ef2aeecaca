import os
import zlib

import pytest

from imgcls.data import image as image_bytes
from imgcls.data.image import BadImageError, ShardSlice, read_bytes

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "000000.tar"
    path.write_bytes(CONTENT)
    return str(path)


def member(shard, offset, size, crc32=None):
    crc32 = zlib.crc32(CONTENT[offset : offset + size]) if crc32 is None else crc32
    return {"file_name": f"{shard}/key.jpg", "shard_slice": ShardSlice(shard, offset, size, crc32)}


def test_a_file_of_its_own(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_bytes({"file_name": str(tmp_path / "a.jpg")}) == b"abc"


def test_missing_and_empty_files_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"a\.jpg: the file is empty \(0 bytes\); .*BAD_IMAGES"):
        read_bytes({"file_name": str(tmp_path / "a.jpg")})
    with pytest.raises(BadImageError, match=r"b\.jpg: cannot be opened: No such file"):
        read_bytes({"file_name": str(tmp_path / "b.jpg")})


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (300, 700), (1000, 24)])
def test_a_part_of_a_shard(shard, offset, size):
    assert read_bytes(member(shard, offset, size)) == CONTENT[offset : offset + size]


def test_a_cut_shard(shard):
    with pytest.raises(BadImageError, match=r"tar/key\.jpg: the shard ends after 24 of its 25 bytes; .*--verify"):
        read_bytes(member(shard, 1000, 25))


def test_changed_bytes(shard):
    with pytest.raises(BadImageError, match=r"000000\.tar/key\.jpg: its checksum in the shard is wrong; .*BAD_IMAGES"):
        read_bytes(member(shard, 10, 25, crc32=1))


def test_a_missing_shard(shard):
    with pytest.raises(BadImageError, match=r"gone\.tar/key\.jpg: the shard cannot be read: .*No such file"):
        read_bytes(member(shard.replace("000000", "gone"), 10, 25))


def test_a_users_own_key_of_that_name_means_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_bytes({"file_name": str(tmp_path / "a.jpg"), "shard_slice": ["/etc/hostname", 0, 3, 0]}) == b"abc"


def test_open_files_do_not_grow(tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.tar").write_bytes(CONTENT)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for i in range(100):
            read_bytes(member(str(tmp_path / f"{i}.tar"), 0, 10))
    assert len(os.listdir("/proc/self/fd")) - before <= image_bytes._OPEN_SHARDS


def test_processes_may_share_an_open_shard(shard):
    """``read`` would move the position of the other; ``pread`` has none."""
    read_bytes(member(shard, 0, 10))
    child = os.fork()
    wrong = any(read_bytes(member(shard, i, 20)) != CONTENT[i : i + 20] for i in range(1000))
    if child == 0:
        os._exit(wrong)
    assert not wrong and os.waitpid(child, 0)[1] == 0
