"""Records in columns: a few numpy arrays hold millions of records, and loader workers share them."""

import json
import os
from collections import Counter, defaultdict
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
# File names that are not UTF-8 appear in JSON as lone surrogates.
ENCODING = ("utf-8", "surrogatepass")


class RecordTable(StoredRecords):
    """Records stored in columns. Reading one gives the dict that was stored, with ``root`` joined to its file name.

    A column of text has two arrays: ``X`` holds the bytes of all values, and ``X_at``, int ``(values + 1,)``, where
    each value begins and the last one ends. N is the number of records.

    ========  =============================================================================================
    folder    int ``(N,)``: index into ``folders`` (text) of the file name's first part
    file      text: the rest of the file name
    flags     uint8 ``(N,)``: where the image id is stored, and whether the record has ``"class"``
    id        int ``(N,)``: the image id if it is a number, else 0
    label     int ``(N,)``; in a multi-label set, the labels of all records one after another, and ``label_at``
              int ``(N + 1,)``
    other     text: the record's other keys as JSON, or nothing; missing if no record has other keys
    ========  =============================================================================================

    Args:
        columns: the arrays by name; integers may have any signed type.
        names: class name by label, for the records with ``"class"``.
        root: the folder that file names are relative to.
    """

    def __init__(self, columns: Mapping[str, NDArray], names: Mapping[int, str], root: str):
        self.columns = dict(columns)
        self.names = dict(names)
        self.root = root
        self.multi_label = "label_at" in self.columns

    def __len__(self) -> int:
        return len(self.columns["flags"])

    def _record(self, index: int) -> dict[str, Any]:
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
        """How many images each label has."""
        counts = np.bincount(self.columns["label"])
        return Counter({int(label): int(counts[label]) for label in np.flatnonzero(counts)})

    def relabelled(self, mapping: Sequence[int | None]) -> "RecordTable":
        """The same images with new labels; all other columns are shared."""
        table = np.array([-1 if label is None else label for label in mapping], np.int32)
        names = {new: self.names[old] for old, new in enumerate(mapping) if new is not None and old in self.names}
        return RecordTable({**self.columns, "label": table[self.columns["label"]]}, names, self.root)

    def _text(self, column: str, index: int) -> str:
        at = self.columns[f"{column}_at"]
        return self.columns[column][at.item(index) : at.item(index + 1)].tobytes().decode(*ENCODING)


_OWN_KEYS = ("file_name", "image_id", "label", "labels", "class")
_INT64 = range(-(2**63), 2**63)


def build_table(batches: Iterable[list[Any]], source: str) -> RawDataset:
    """Checks records as `check_records` does and stores them in columns; only one batch at a time is kept as dicts.

    Args:
        batches: lists of records as parsed from JSON.
        source: the file that they come from; it starts every error message, and file names are relative to its folder.

    Raises:
        UserError: names the first invalid record, or two records with the same image id.
    """
    check = RecordCheck(source)
    builder = TableBuilder()
    for records in batches:
        check.add(records)
        builder.add(records)
    raw = check.raw_dataset([])
    names = dict(enumerate(raw.classes)) if raw.named else {}
    table = RecordTable(builder.columns(), names, os.path.dirname(source))
    check_unique_ids(source, builder.suspects(table))
    return replace(raw, records=table)


class TableBuilder:
    """The columns of a `RecordTable`, to which records are added in batches."""

    def __init__(self) -> None:
        self._folders: dict[str, int] = {}
        self._numbers: defaultdict[str, list[NDArray]] = defaultdict(list)
        self._texts: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._multi_label = False

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Appends checked records, which are all single-label or all multi-label."""
        if not records:
            return
        file_names = [record["file_name"] for record in records]
        image_ids = [record["image_id"] for record in records]
        ends = [name.rfind("/") + 1 for name in file_names]
        folders = [name[:end] for name, end in zip(file_names, ends, strict=True)]
        for folder in dict.fromkeys(folders):
            self._folders.setdefault(folder, len(self._folders))
        self._add_numbers("folder", [self._folders[folder] for folder in folders])
        self._add_texts("file", [name[end:] for name, end in zip(file_names, ends, strict=True)])
        flags = _id_flags(file_names, image_ids)
        self._add_numbers("hash", list(map(hash, image_ids)))
        if set(flags) != {ID_IS_NUMBER}:
            image_ids = [i if flag == ID_IS_NUMBER else 0 for i, flag in zip(image_ids, flags, strict=True)]
        self._add_numbers("id", image_ids)
        if "labels" in records[0]:
            self._multi_label = True
            labels = [record["labels"] for record in records]
            self._add_numbers("label", [label for several in labels for label in several])
            self._add_numbers("labels", list(map(len, labels)))
        else:
            self._add_numbers("label", [record["label"] for record in records])
        named = [record.get("class") is not None for record in records]
        if any(named):
            flags = [flag | HAS_CLASS if has else flag for flag, has in zip(flags, named, strict=True)]
        self._add_numbers("flags", flags)
        if {_USUAL_KEYS.get(flag) for flag in set(flags)} == set(map(len, records)):
            others = [""] * len(records)
        else:
            others = [_other(record, flag) for record, flag in zip(records, flags, strict=True)]
        self._add_texts("other", others)

    def columns(self) -> dict[str, NDArray]:
        """The columns of all records added so far."""
        columns = {"flags": self._joined("flags").astype(np.uint8)}
        columns |= {name: self._joined(name) for name in ("folder", "id", "label")}
        if self._multi_label:
            columns["label_at"] = _starts(self._joined("labels"))
        for name in ("file", "other"):
            if name == "file" or self._texts[name]:
                columns[name] = np.frombuffer(self._texts[name], np.uint8)
                columns[f"{name}_at"] = _starts(self._joined(name))
        encoded = [folder.encode(*ENCODING) for folder in self._folders]
        columns["folders"] = np.frombuffer(b"".join(encoded), np.uint8)
        columns["folders_at"] = _starts(np.array(list(map(len, encoded)), np.int64))
        return columns

    def suspects(self, table: RecordTable) -> Iterator[tuple[int, int | str]]:
        """Number and image id of the records that may share an id: those whose ids have the same hash."""
        hashes = self._joined("hash")
        ordered = np.sort(hashes)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        for index in np.flatnonzero(np.isin(hashes, repeated)).tolist() if len(repeated) else ():
            yield index + 1, table[index]["image_id"]

    def _add_numbers(self, name: str, values: list[int]) -> None:
        self._numbers[name].append(_smallest(np.array(values, np.int64)))

    def _add_texts(self, name: str, texts: list[str]) -> None:
        joined = "".join(texts)
        encoded = joined.encode(*ENCODING)
        is_ascii = len(encoded) == len(joined)
        self._add_numbers(name, [len(text if is_ascii else text.encode(*ENCODING)) for text in texts])
        self._texts[name] += encoded

    def _joined(self, name: str) -> NDArray:
        return np.concatenate(self._numbers[name] or [np.empty(0, np.int8)])


# By the flags of a record: the number of its keys if it has nothing for the column "other".
_USUAL_KEYS = {ID_IS_FILE_NAME: 3, ID_IS_NUMBER: 3, ID_IS_FILE_NAME | HAS_CLASS: 4, ID_IS_NUMBER | HAS_CLASS: 4}


def _id_flags(file_names: list[str], image_ids: list[Any]) -> list[int]:
    if set(map(type, image_ids)) == {int} and min(image_ids) in _INT64 and max(image_ids) in _INT64:
        return [ID_IS_NUMBER] * len(image_ids)
    return [
        ID_IS_NUMBER if type(image_id) is int and image_id in _INT64 else ID_IS_FILE_NAME if image_id == name else 0
        for name, image_id in zip(file_names, image_ids, strict=True)
    ]


def _other(record: dict[str, Any], flags: int) -> str:
    if len(record) == _USUAL_KEYS.get(flags):
        return ""
    other = {key: value for key, value in record.items() if key not in _OWN_KEYS}
    if not flags & HAS_CLASS and "class" in record:
        other["class"] = None
    if not flags & (ID_IS_FILE_NAME | ID_IS_NUMBER):
        other["image_id"] = record["image_id"]
    return json.dumps(other, ensure_ascii=False, separators=(",", ":"))


def _starts(sizes: NDArray) -> NDArray:
    """Where each value begins and the last one ends, from their sizes."""
    return _smallest(np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))))


def _smallest(values: NDArray[np.int64]) -> NDArray:
    """The values in the smallest signed type that can hold them all."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))
