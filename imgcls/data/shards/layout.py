"""What a folder of shards holds: ``index.json``, and for every ``000000.tar`` its table ``000000.npy``.

The tar file is a WebDataset shard for every tool: ``KEY.jpg`` or ``KEY.png``, ``KEY.cls`` (one label) and ``KEY.json``.
The table says where each image lies, so that one read of the shard gets any of them, and with which label.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.errors import UserError, UserFileNotFoundError

FORMAT = "imgcls shards 1"
INDEX = "index.json"
# The columns of a table; a label column is between them.
_PLACE = [("offset", "<i8"), ("size", "<i4"), ("crc32", "<u4")]
_SHARD_NAME = re.compile(r"\d{6,}\.tar")
_KINDS = {
    "classes": list, "named": bool, "multi_label": bool, "samples": int, "label_counts": dict, "shards": list
}  # fmt: skip


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def sample_key(shard: str, row: int) -> str:
    """The name of a sample in its shard, different from all others of the set."""
    return f"{shard.removesuffix('.tar')}-{row:06d}"


def table_path(shard_path: str) -> str:
    """The table that lies beside a shard."""
    return shard_path.removesuffix(".tar") + ".npy"


def table_type(multi_label: bool, most_labels: int, id_bytes: int) -> np.dtype:
    """The columns of a table, one row a sample.

    Args:
        multi_label: whether there is ``"labels"`` or ``"label"``.
        most_labels: of one image; rows with fewer are filled up with -1.
        id_bytes: of the longest image id, which is stored as JSON to keep ints and strings apart.
    """
    label = ("labels", "<i4", (max(most_labels, 1),)) if multi_label else ("label", "<i4")
    return np.dtype([*_PLACE, label, ("image_id", f"S{max(id_bytes, 1)}"), ("extension", "S4")])


def read_index(folder: str) -> dict[str, Any]:
    """The content of ``index.json``, checked as far as reading the shards depends on it.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    path = os.path.join(folder, INDEX)
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
    except FileNotFoundError:
        raise UserFileNotFoundError(
            f"{path}: no such file; {folder} is no complete output of tools/pack_dataset.py, whose last step writes it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged, not JSON ({error}); pack the set again") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        came = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise UserError(f'{path}: its "format" is {came!r}, expected {FORMAT!r}; pack the set again with this version')
    wrong = [key for key, kind in _KINDS.items() if type(index.get(key)) is not kind]
    if wrong or not all(map(_is_shard, index["shards"])):
        raise UserError(f"{path}: damaged in {', '.join(map(repr, wrong)) or repr('shards')}; pack the set again")
    return index


def read_table(shard_path: str, sha256: str) -> NDArray[np.void]:
    """The memory-mapped table of a shard.

    It is read once for its checksum: what it says of labels and places is then as it was packed.

    Args:
        shard_path: the tar file.
        sha256: of the table, in hex; from the index.

    Returns:
        ``(samples,)`` with the columns of `table_type`.

    Raises:
        UserError: the table is missing, damaged, or not the one of this index.
    """
    path = table_path(shard_path)
    try:
        with open(path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != sha256:
            raise UserError(f"{path}: its SHA-256 is not that in {INDEX}; damaged, or of another packing")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserFileNotFoundError(f"{path}: {error.strerror}; it belongs to {shard_path}: bring it back") from None


def read_labels(row: np.void) -> int | list[int]:
    """A row's label, or its list of labels where the set is multi-label."""
    if "label" in row.dtype.names:
        return int(row["label"])
    return [label for label in row["labels"].tolist() if label >= 0]


def _is_shard(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not _SHARD_NAME.fullmatch(str(entry.get("name"))):
        return False
    numbers = all(type(entry.get(key)) is int and entry[key] >= 0 for key in ("samples", "bytes"))
    return numbers and all(type(entry.get(key)) is str for key in ("sha256", "table_sha256"))
