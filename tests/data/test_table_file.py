import io
import json
import os

import numpy as np
import pytest

from imgcls.data.table_file import DamagedTableError, read_table, write_table

COLUMNS = {
    "text": np.frombuffer("dög".encode(), np.uint8),
    "small": np.array([-1, 2, 3], np.int8),
    "offset": np.array([2**40, 0], np.int64),
    "crc32": np.array([2**32 - 1], np.uint32),
    "empty": np.empty(0, np.int16),
}
ABOUT = {"classes": ["dög", "cat"], "named": True}


@pytest.fixture
def path(tmp_path):
    with open(tmp_path / "x.index", "wb") as file:
        write_table(file, COLUMNS, ABOUT)
    return tmp_path / "x.index"


def test_columns_are_mapped_and_equal(path):
    file = io.BytesIO()
    checksum = write_table(file, COLUMNS, ABOUT)
    table = read_table(path)
    assert table.checksum == checksum and table.about == ABOUT and table.columns.keys() == COLUMNS.keys()
    for name, column in table.columns.items():
        assert column.dtype == COLUMNS[name].dtype and column.tolist() == COLUMNS[name].tolist()
        assert type(column) is np.ndarray and not column.flags.writeable and column.flags.aligned
        base = column
        while type(base) is np.ndarray:
            base = base.base
        assert isinstance(base, np.memmap)
    assert path.read_bytes() == file.getvalue(), "equal content gives equal bytes"


def test_the_safetensors_library_reads_it(path, require):
    safetensors = require("safetensors.numpy")
    columns = safetensors.load_file(str(path))
    assert {name: column.tolist() for name, column in columns.items()} == {
        name: column.tolist() for name, column in COLUMNS.items()
    }


def test_every_changed_byte_is_found(path):
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    padding = range(content.rindex(b"}", 0, header) + 1, header)
    for at in range(len(content)):
        if at in padding:
            continue
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedTableError):
            read_table(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file(path, size):
    os.truncate(path, size % os.path.getsize(path))
    with pytest.raises(DamagedTableError) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_files_of_another_kind(path):
    for content in (b"text", json.dumps(ABOUT).encode(), (2).to_bytes(8, "little") + b"[]", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(DamagedTableError):
            read_table(path)


def test_damage_is_not_looked_for_without_verify(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert read_table(path, verify=False).about == ABOUT


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "x")
