"""The file format of stored records: columns of numbers and text that are mapped into memory instead of read.

It is the safetensors format, so any safetensors library can read the columns. Such a library copies them, while this
module maps them, so that all processes of a machine share one copy in the page cache.
"""

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U32": "<u4"}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_METADATA = "__metadata__"
_ALIGNMENT = 8


class DamagedTableError(ValueError):
    """The file is not a table, or its content differs from what was written."""


class StoredTable(NamedTuple):
    """What a table file holds: what was given to `write_table`, and the checksum that it returned."""

    columns: dict[str, NDArray]
    about: dict[str, Any]
    checksum: int


def write_table(file: BinaryIO, columns: Mapping[str, NDArray], about: Mapping[str, Any]) -> int:
    """Writes integer arrays by name, and further facts that JSON can hold; returns the CRC-32 of both."""
    # Large items first, so that every column is aligned.
    arrays = {name: np.ascontiguousarray(columns[name]) for name in sorted(columns)}
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    entries: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    about_text = json.dumps(about)
    checksum = _header_checksum(entries, about_text)
    for array in arrays.values():
        checksum = zlib.crc32(array.data, checksum)
    header = json.dumps({_METADATA: {"about": about_text, "crc32": str(checksum)}, **entries}).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    file.write(len(header).to_bytes(8, "little") + header)
    for array in arrays.values():
        file.write(array.tobytes())
    return checksum


def read_table(path: str | os.PathLike[str], verify: bool = True) -> StoredTable:
    """Maps the columns of a table file into memory; with ``verify``, reads all of it to check its checksum.

    Raises:
        DamagedTableError: the file is not a table, or differs from what was written.
        OSError: the file cannot be opened.
    """
    try:
        # A plain view of the mapping: indexing a subclass of ndarray is slow.
        content = np.asarray(np.memmap(path, np.uint8, mode="r"))
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        entries = json.loads(content[8:start].tobytes())
        metadata = entries.pop(_METADATA)
        data = content[start:]
        checksum = int(metadata["crc32"])
        if verify and zlib.crc32(data.data, _header_checksum(entries, metadata["about"])) != checksum:
            raise DamagedTableError("its checksum does not match its content")
        columns = {name: _column(data, **entry) for name, entry in entries.items()}
        return StoredTable(columns, json.loads(metadata["about"]), checksum)
    except (OSError, DamagedTableError):
        raise
    # Truncated, edited and foreign files fail in many ways.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedTableError(" ".join(f"{type(error).__name__}: {error}".split())) from None


def _column(data: NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray:
    begin, end = data_offsets
    return data[begin:end].view(_DTYPES[dtype]).reshape(shape)


def _header_checksum(entries: dict[str, Any], about: str) -> int:
    return zlib.crc32(json.dumps([entries, about], sort_keys=True).encode())
