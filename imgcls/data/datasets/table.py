"""Records in columns: millions of them in a few numpy arrays, which loader workers share."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.datasets.records import StoredRecords

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
