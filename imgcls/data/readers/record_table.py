"""Records in columns: millions of them in a few numpy arrays, which loader workers share."""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.dataset import RawDataset, StoredRecords, check_unique_ids
from imgcls.data.readers.record_check import RecordCheck

# Bits of the column "flags".
ID_IS_NUMBER, ID_IS_FILE_NAME, HAS_CLASS = 1, 2, 4
# How text becomes bytes: names of files that are not UTF-8 reach JSON as lone surrogates.
ENCODING = ("utf-8", "surrogatepass")


class RecordTable(StoredRecords):
    """Records that look exactly like those of the JSON that they were read from.

    Columns of text are bytes, ``X``, and where each value begins, ``X_at``: int ``(values + 1,)``. N is the number
    of records.

    ========  =============================================================================================
    folder    int ``(N,)``: which of ``folders`` (text) the file name begins with
    file      text: the rest of the file name
    flags     uint8 ``(N,)``: where the image id is, and whether the record has ``"class"``
    id        int ``(N,)``: the image id, where it is a number
    label     int ``(N,)``; of a multi-label set the labels of all records in a row, and ``label_at``: ``(N + 1,)``
    other     text: whatever else the record has, as JSON, or nothing; absent where no record has more
    ========  =============================================================================================

    Args:
        columns: the arrays by name; integers may be of any signed type.
        names: class name by label, for the records that have ``"class"``.
        root: what file names are relative to.
    """

    def __init__(self, columns: Mapping[str, NDArray], names: Mapping[int, str], root: str):
        self.columns = dict(columns)
        self.names = dict(names)
        self.root = root
        self.multi_label = "label_at" in self.columns

    def __len__(self) -> int:
        return len(self.columns["flags"])

    def __getitem__(self, index: int | slice) -> Any:
        """The record at ``index``, a new dict each time; a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        columns, flags = self.columns, self.columns["flags"].item(index)
        file_name = self._text("folders", columns["folder"].item(index)) + self._text("file", index)
        record: dict[str, Any] = {"file_name": join(self.root, file_name)}
        if flags & ID_IS_FILE_NAME:
            record["image_id"] = file_name
        elif flags & ID_IS_NUMBER:
            record["image_id"] = columns["id"].item(index)
        if self.multi_label:
            at = columns["label_at"]
            record["labels"] = columns["label"][at.item(index) : at.item(index + 1)].tolist()
            if flags & HAS_CLASS:
                record["class"] = [self.names[label] for label in record["labels"]]
        else:
            record["label"] = columns["label"].item(index)
            if flags & HAS_CLASS:
                record["class"] = self.names[record["label"]]
        if "other" in columns and (other := self._text("other", index)):
            record.update(json.loads(other))
        return record

    def label_counts(self) -> Counter[int]:
        counts = np.bincount(self.columns["label"])
        return Counter({int(label): int(counts[label]) for label in np.flatnonzero(counts)})

    def relabelled(self, mapping: Sequence[int | None]) -> "RecordTable":
        table = np.array([-1 if label is None else label for label in mapping], np.int32)
        names = {new: self.names[old] for old, new in enumerate(mapping) if new is not None and old in self.names}
        return RecordTable({**self.columns, "label": table[self.columns["label"]]}, names, self.root)

    def _text(self, column: str, index: int) -> str:
        at = self.columns[f"{column}_at"]
        return str(self.columns[column][at.item(index) : at.item(index + 1)], *ENCODING)


_OWN_COLUMNS = ("file_name", "image_id", "label", "labels", "class")
_INT64 = range(-(2**63), 2**63)


def build_table(records: Iterable[Any], source: str) -> RawDataset:
    """Checks records as `check_records` does and stores them; none is kept as a dict.

    Args:
        records: as parsed from JSON.
        source: the file that they come from: begins every message, and file names are relative to its folder.

    Raises:
        UserError: names the first record that cannot be used, or two with the same image id.
    """
    check = RecordCheck(source)
    columns = _GrowingTable()
    for record in records:
        check(record)
        columns.add(record)
    raw = check.raw_dataset([])
    names = dict(enumerate(raw.classes)) if raw.named else {}
    table = RecordTable(columns.arrays(raw.multi_label), names, os.path.dirname(source))
    check_unique_ids(source, columns.suspects(table))
    return replace(raw, records=table)


class _GrowingTable:
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
