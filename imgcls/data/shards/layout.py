"""The files of packed data: ``index.json``, and for every shard ``000000.tar`` its table ``000000.index``.

Each tar file is a WebDataset shard for any tool: ``KEY.jpg`` or ``KEY.png``, ``KEY.cls`` (one label) and ``KEY.json``.
The table has the records of the shard in the same columns as the index of a JSON file (`RecordTable`), and the offset,
size and CRC-32 of each image, so that one read of the shard gets any image.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.readers.record_table import RecordTable, TableBuilder
from imgcls.data.table_file import DamagedTableError, read_table
from imgcls.errors import UserError, UserFileNotFoundError

FORMAT = "imgcls shards 2"
# Tables of version 1 are structured .npy files.
_FORMATS = ("imgcls shards 1", FORMAT)
INDEX = "index.json"
# The columns that a shard has in addition to those of a RecordTable.
_SLICE = {"offset": np.int64, "size": np.int32, "crc32": np.uint32}
_SHARD_NAME = re.compile(r"\d{6,}\.tar")
_KINDS = {
    "classes": list, "named": bool, "multi_label": bool, "samples": int, "label_counts": dict, "shards": list
}  # fmt: skip


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def sample_key(shard: str, row: int) -> str:
    """The name of a sample in its shard, unique in the whole set."""
    return f"{shard.removesuffix('.tar')}-{row:06d}"


def table_path(shard_path: str, entry: Mapping[str, Any] | None = None) -> str:
    """The path of a shard's table; its ``entry`` in the index is needed if it may be of format version 1."""
    version_1 = entry is not None and "table_sha256" in entry
    return shard_path.removesuffix(".tar") + (".npy" if version_1 else ".index")


def table_columns(
    shard: str, samples: Sequence[Mapping[str, Any]], extensions: Iterable[str], slices: Iterable[tuple[int, int, int]]
) -> dict[str, NDArray]:
    """The columns of a shard's table.

    Args:
        shard: the file name of the shard.
        samples: with ``"image_id"`` and ``"label"`` or ``"labels"``, in the order of the shard.
        extensions: those of the images' file names in the shard.
        slices: offset, size in bytes, and CRC-32 of each image.
    """
    builder = TableBuilder()
    keys = ("image_id", "label", "labels")
    builder.add(
        [
            {
                "file_name": f"{shard}/{sample_key(shard, row)}.{extension}",
                **{key: sample[key] for key in keys if key in sample},
            }
            for row, (sample, extension) in enumerate(zip(samples, extensions, strict=True))
        ]
    )
    numbers = np.array(list(slices), np.int64).reshape(-1, len(_SLICE))
    return builder.columns() | {
        name: numbers[:, column].astype(kind) for column, (name, kind) in enumerate(_SLICE.items())
    }


def read_index(folder: str) -> dict[str, Any]:
    """The content of ``index.json``, with the parts checked that readers of shards depend on.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    path = os.path.join(folder, INDEX)
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
    except FileNotFoundError:
        raise UserFileNotFoundError(
            f"{path}: no such file; {folder} is not a complete output of tools/pack_dataset.py, which writes it last"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged, not JSON ({error}); pack the set again") from None
    if not isinstance(index, dict) or index.get("format") not in _FORMATS:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise UserError(f'{path}: its "format" is {found!r}, expected {FORMAT!r}; pack the set again with this version')
    wrong = [key for key, kind in _KINDS.items() if type(index.get(key)) is not kind]
    if wrong or not index["shards"] or not all(map(_is_shard, index["shards"])):
        raise UserError(f"{path}: damaged in {', '.join(map(repr, wrong)) or repr('shards')}; pack the set again")
    return index


def read_shard_table(folder: str, entry: Mapping[str, Any], verify: bool) -> RecordTable:
    """The records of the shard with this ``entry`` in the index, with the columns of `table_columns`.

    With ``verify``, the whole table is read and compared with its checksum.

    Raises:
        UserError: the table is missing, damaged, or does not belong to this index.
    """
    path = table_path(os.path.join(folder, entry["name"]), entry)
    try:
        if "table_sha256" in entry:
            return RecordTable(_read_version_1(path, entry, verify), {}, folder)
        table = read_table(path, verify)
    except OSError as error:
        raise UserFileNotFoundError(
            f"{path}: {error.strerror}; it belongs to {entry['name']}: restore it, or pack the set again"
        ) from None
    except (DamagedTableError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it, or pack the set again") from None
    if table.checksum != entry["table_crc32"]:
        raise UserError(f"{path}: its checksum is not that in {INDEX}; it comes from another packing")
    return RecordTable(table.columns, {}, folder)


def _read_version_1(path: str, entry: Mapping[str, Any], verify: bool) -> dict[str, NDArray]:
    if verify:
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != entry["table_sha256"]:
                raise DamagedTableError(f"its SHA-256 is not that in {INDEX}")
    table = np.load(path, allow_pickle=False)
    key = "labels" if "labels" in table.dtype.names else "label"
    labels = table[key].tolist()
    if key == "labels":
        labels = [[label for label in several if label >= 0] for several in labels]
    samples = [
        {"image_id": json.loads(image_id), key: label}
        for image_id, label in zip(table["image_id"].tolist(), labels, strict=True)
    ]
    extensions = [extension.decode() for extension in table["extension"].tolist()]
    return table_columns(entry["name"], samples, extensions, table[list(_SLICE)].tolist())


def _is_shard(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not _SHARD_NAME.fullmatch(str(entry.get("name"))):
        return False
    if type(entry.get("sha256")) is not str:
        return False
    if type(entry.get("table_sha256")) is not str and type(entry.get("table_crc32")) is not int:
        return False
    return all(type(entry.get(key)) is int and entry[key] >= 0 for key in ("samples", "bytes"))
