"""``shards:PATH/{000000..000127}.tar``: images packed by tools/pack_dataset.py."""

import copy
import json
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.dataset import RawDataset, StoredRecords
from imgcls.data.image import ShardSlice
from imgcls.data.shards.layout import INDEX, read_index, read_labels, read_table, sample_key, table_path
from imgcls.errors import UserError, UserFileNotFoundError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_OPEN_TABLES = 32  # as many as there are open shards in data/image_bytes.py


def read_shards(path: str) -> RawDataset:
    """Reads the index of packed shards, and looks whether the files named are there in full.

    Args:
        path: one shard, several as ``{FIRST..LAST}.tar``, or their folder for all of them.

    Raises:
        UserError: no index, a shard that it does not know, or a shard or table that is missing or has another size.
    """
    folder, pattern = (path, "") if os.path.isdir(path) else os.path.split(path)
    index = read_index(folder)
    known = {shard["name"]: shard for shard in index["shards"]}
    chosen = []
    for name in _expand(pattern) if pattern else known:
        if name not in known:
            raise UserError(
                f"{os.path.join(folder, name)}: {INDEX} beside it knows no such shard, but "
                f"{_range(list(known))}; name some of these, as shards:PATH/{{FIRST..LAST}}.tar"
            )
        chosen.append(known[name])
        _check_files(os.path.join(folder, name), known[name]["bytes"])
    records = ShardRecords(folder, chosen, index)
    if not len(records):
        raise UserError(f"{path}: the index says that no image is in there")
    return RawDataset(records, index["classes"], index["named"], index["multi_label"], os.path.join(folder, INDEX))


class ShardRecords(StoredRecords):
    """The samples of some shards; in memory are a few numbers of each shard, and the tables last used.

    Args:
        folder: of the shards.
        shards: their entries in the index.
        index: its content.
    """

    def __init__(self, folder: str, shards: Sequence[dict[str, Any]], index: dict[str, Any]):
        self.folder = folder
        self.names = [shard["name"] for shard in shards]
        self._checksums = [shard["table_sha256"] for shard in shards]
        self.shard_sizes = np.array([shard["samples"] for shard in shards], np.int64)
        self.multi_label = index["multi_label"]
        self.mapping: Sequence[int | None] | None = None
        # The index adds up all its shards; of some of them, the tables know.
        everything = len(shards) == len(index["shards"])
        self._counts = {int(label): n for label, n in index["label_counts"].items()} if everything else None
        self._ends = np.cumsum(self.shard_sizes)
        self._tables: OrderedDict[int, NDArray[np.void]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The record, with its ``"shard_slice"`` in the shard; its ``"file_name"`` is the shard and the member's name.

        Raises:
            UserError: the shard's table is missing or damaged.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        shard = int(np.searchsorted(self._ends, i, side="right"))
        row_number = int(i - self._ends[shard] + self.shard_sizes[shard])
        row = self._table(shard)[row_number]
        path = os.path.join(self.folder, self.names[shard])
        labels = read_labels(row)
        if self.mapping is not None:
            labels = [self.mapping[k] for k in labels] if self.multi_label else self.mapping[labels]
        return {
            "file_name": f"{path}/{sample_key(self.names[shard], row_number)}.{row['extension'].decode()}",
            "image_id": json.loads(row["image_id"]),
            "labels" if self.multi_label else "label": labels,
            "shard_slice": ShardSlice(path, int(row["offset"]), int(row["size"]), int(row["crc32"])),
        }

    def label_counts(self) -> Counter[int]:
        if self._counts is None:
            self._counts = sum((self._count(shard) for shard in range(len(self.names))), Counter())
        return Counter({label if self.mapping is None else self.mapping[label]: n for label, n in self._counts.items()})

    def relabelled(self, mapping: Sequence[int | None]) -> "ShardRecords":
        other = copy.copy(self)
        other.mapping = mapping if self.mapping is None else [k if k is None else mapping[k] for k in self.mapping]
        return other

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked: it opens the tables anew."""
        return {**self.__dict__, "_tables": OrderedDict()}

    def _count(self, shard: int) -> Counter[int]:
        labels = self._table(shard)["labels" if self.multi_label else "label"]
        values, counts = np.unique(labels[labels >= 0], return_counts=True)
        return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def _table(self, shard: int) -> NDArray[np.void]:
        if shard in self._tables:
            self._tables.move_to_end(shard)
            return self._tables[shard]
        path = os.path.join(self.folder, self.names[shard])
        table = self._tables[shard] = read_table(path, self._checksums[shard])
        if len(self._tables) > _OPEN_TABLES:
            self._tables.popitem(last=False)
        return table


def _expand(pattern: str) -> Iterator[str]:
    """``{000000..000127}.tar`` to the names; nothing is kept, so that the first unknown name ends a huge range."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    if int(first) > int(last):
        raise UserError(f"{pattern}: the range runs backwards; the first number is the smaller one")
    for number in range(int(first), int(last) + 1):
        yield pattern[: match.start()] + str(number).zfill(len(first)) + pattern[match.end() :]


def _range(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _check_files(path: str, size: int) -> None:
    try:
        found = os.path.getsize(path)
        os.stat(table_path(path))
    except OSError as error:
        raise UserFileNotFoundError(
            f"{error.filename}: {error.strerror}, but {INDEX} beside it names it; bring it back, or leave its shard "
            "out of the range"
        ) from None
    if found != size:
        raise UserError(f"{path}: has {found} bytes, {INDEX} says {size}; the file is cut or from another packing")
