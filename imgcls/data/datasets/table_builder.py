"""From records, one after the other, to a checked table of them."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.datasets.record_check import RecordCheck, check_unique_ids
from imgcls.data.datasets.records import Listing
from imgcls.data.datasets.table import ENCODING, HAS_CLASS, ID_IS_FILE_NAME, ID_IS_NUMBER, RecordTable

_OWN_COLUMNS = ("file_name", "image_id", "label", "labels", "class")
_INT64 = range(-(2**63), 2**63)


def build_table(records: Iterable[Any], source: str) -> Listing:
    """Checks records as `check_records` does and stores them; none is kept as a dict.

    Args:
        records: as parsed from JSON.
        source: the file that they come from: begins every message, and file names are relative to its folder.

    Raises:
        UserError: names the first record that cannot be used, or two with the same image id.
    """
    check = RecordCheck(source)
    columns = _Columns()
    for record in records:
        check(record)
        columns.add(record)
    listing = check.listing([])
    names = dict(enumerate(listing.classes)) if listing.named else {}
    table = RecordTable(columns.arrays(listing.multi_label), names, os.path.dirname(source))
    check_unique_ids(source, columns.suspects(table))
    return replace(listing, records=table)


class _Columns:
    """The columns of `RecordTable` as they grow."""

    def __init__(self):
        self.folders: dict[str, int] = {}
        self.folder, self.id, self.label, self.label_at = array("q"), array("q"), array("q"), array("q", [0])
        self.file, self.other, self.flags = _TextColumn(), _TextColumn(), bytearray()
        self.hashes = array("q")  # of the image ids

    def add(self, record: dict[str, Any]) -> None:
        """Appends a checked record."""
        file_name, image_id = record["file_name"], record["image_id"]
        head, slash, tail = file_name.rpartition("/")
        self.folder.append(self.folders.setdefault(head + slash, len(self.folders)))
        self.file.append(tail)
        if image_id == file_name:
            flags, number = ID_IS_FILE_NAME, 0
        elif type(image_id) is int and image_id in _INT64:
            flags, number = ID_IS_NUMBER, image_id
        else:
            flags, number = 0, 0
        self.id.append(number)
        self.hashes.append(hash(image_id))
        if "labels" in record:
            self.label.extend(record["labels"])
            self.label_at.append(len(self.label))
        else:
            self.label.append(record["label"])
        if record.get("class") is not None:
            flags |= HAS_CLASS
        self.flags.append(flags)
        if len(record) > 3 + (flags >= HAS_CLASS) or not flags & (ID_IS_FILE_NAME | ID_IS_NUMBER):
            other = {key: value for key, value in record.items() if key not in _OWN_COLUMNS}
            if not flags & HAS_CLASS and "class" in record:
                other["class"] = None
            if not flags & (ID_IS_FILE_NAME | ID_IS_NUMBER):
                other["image_id"] = image_id
            self.other.append(json.dumps(other, ensure_ascii=False, separators=(",", ":")))
        else:
            self.other.append("")

    def arrays(self, multi_label: bool) -> dict[str, NDArray]:
        folders = _TextColumn()
        for folder in self.folders:
            folders.append(folder)
        columns = {
            "folder": _smallest(self.folder),
            **folders.arrays("folders"),
            **self.file.arrays("file"),
            "flags": np.frombuffer(self.flags, np.uint8),
            "id": _smallest(self.id),
            "label": _smallest(self.label),
        }
        if multi_label:
            columns["label_at"] = _smallest(self.label_at)
        if self.other.bytes:
            columns.update(self.other.arrays("other"))
        return columns

    def suspects(self, table: RecordTable) -> Iterator[tuple[int, int | str]]:
        """Number and image id of the records whose id may come twice: equal ids have equal hashes."""
        hashes = np.frombuffer(self.hashes, np.int64)
        values, counts = np.unique(hashes, return_counts=True)
        for index in np.flatnonzero(np.isin(hashes, values[counts > 1])) if len(values) < len(hashes) else ():
            yield int(index) + 1, table[index]["image_id"]


class _TextColumn:
    def __init__(self):
        self.bytes = bytearray()
        self.at = array("q", [0])

    def append(self, text: str) -> None:
        self.bytes += text.encode(*ENCODING)
        self.at.append(len(self.bytes))

    def arrays(self, name: str) -> dict[str, NDArray]:
        return {name: np.frombuffer(self.bytes, np.uint8), f"{name}_at": _smallest(self.at)}


def _smallest(values: array) -> NDArray:
    """The values in the smallest signed type that holds them all."""
    numbers = np.frombuffer(values, np.int64) if values else np.empty(0, np.int64)
    low, high = (int(numbers.min()), int(numbers.max())) if values else (0, 0)
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return numbers.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))
