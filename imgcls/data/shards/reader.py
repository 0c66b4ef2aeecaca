"""``shards:PATH/{000000..000127}.tar``: images packed by tools/pack_dataset.py."""

import copy
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.dataset import RawDataset, StoredRecords
from imgcls.data.image import ShardSlice
from imgcls.data.readers.record_table import RecordTable
from imgcls.data.shards.layout import INDEX, read_index, read_shard_table, table_path
from imgcls.errors import UserError, UserFileNotFoundError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# Training reads 16 shards at a time, and 32 where one window ends and the next begins.
_OPEN_TABLES = 32


def read_shards(path: str) -> RawDataset:
    """Reads the index of packed shards, and checks that the files exist and have the right size.

    Args:
        path: one shard, several shards as ``{FIRST..LAST}.tar``, or the folder of all shards.

    Raises:
        UserError: the index is missing, a shard is not in it, or a file is missing or has another size.
    """
    folder, pattern = (path, "") if os.path.isdir(path) else os.path.split(path)
    index = read_index(folder)
    known = {shard["name"]: shard for shard in index["shards"]}
    chosen = []
    for name in _expand(pattern) if pattern else known:
        if name not in known:
            raise UserError(
                f"{os.path.join(folder, name)}: {INDEX} in this folder does not list this shard; it "
                f"lists {_range(list(known))}, which can be named as shards:PATH/{{FIRST..LAST}}.tar"
            )
        chosen.append(known[name])
        _check_files(os.path.join(folder, name), known[name])
    records = ShardRecords(folder, chosen, index)
    if not len(records):
        raise UserError(f"{path}: contains no images, according to {INDEX}")
    return RawDataset(records, index["classes"], index["named"], index["multi_label"], os.path.join(folder, INDEX))


class ShardRecords(StoredRecords):
    """The samples of some shards. Only a few numbers per shard and the most recently used tables are in memory.

    A record has a ``"shard_slice"``; its ``"file_name"`` is the shard's path and the image's name in the shard.
    A missing or damaged table raises a ``UserError`` when one of its records is read.

    Args:
        folder: of the shards.
        shards: their entries in the index.
        index: the content of ``index.json``.
    """

    shard_sizes: NDArray[np.int64]

    def __init__(self, folder: str, shards: Sequence[dict[str, Any]], index: dict[str, Any]):
        self.folder = folder
        self.entries = shards
        self.names = [shard["name"] for shard in shards]
        self.shard_sizes = np.array([shard["samples"] for shard in shards], np.int64)
        self.multi_label = index["multi_label"]
        self.mapping: Sequence[int | None] | None = None
        # The index has the counts of all shards together; those of a selection come from the tables.
        complete = len(shards) == len(index["shards"])
        self._counts = Counter({int(label): n for label, n in index["label_counts"].items()}) if complete else None
        self._ends = np.cumsum(self.shard_sizes)
        self._tables: OrderedDict[int, RecordTable] = OrderedDict()
        self._verified: dict[int, tuple[int, int]] = {}  # shard -> `_file_state` of its table

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _record(self, index: int) -> dict[str, Any]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = int(index - self._ends[shard] + self.shard_sizes[shard])
        table = self._table(shard)
        record: dict[str, Any] = table[row]
        if self.multi_label:
            record["labels"] = [self._mapped(label) for label in record["labels"]]
        else:
            record["label"] = self._mapped(record["label"])
        offset, size, crc32 = (table.columns[name].item(row) for name in ("offset", "size", "crc32"))
        record["shard_slice"] = ShardSlice(os.path.join(self.folder, self.names[shard]), offset, size, crc32)
        return record

    def label_counts(self) -> Counter[int]:
        """How many images each label has."""
        if self._counts is None:
            self._counts = sum((self._table(shard).label_counts() for shard in range(len(self.names))), Counter())
        return Counter({self._mapped(label): count for label, count in self._counts.items()})

    def relabelled(self, mapping: Sequence[int | None]) -> "ShardRecords":
        """The same images with new labels; the tables are shared."""
        other = copy.copy(self)
        other.mapping = mapping if self.mapping is None else [k if k is None else mapping[k] for k in self.mapping]
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the open tables, so that a spawned worker opens its own."""
        return {**self.__dict__, "_tables": OrderedDict()}

    def _mapped(self, label: int) -> int:
        new = label if self.mapping is None else self.mapping[label]
        assert new is not None, "only labels without images may be left out of a mapping"
        return new

    def _table(self, shard: int) -> RecordTable:
        if shard in self._tables:
            self._tables.move_to_end(shard)
            return self._tables[shard]
        entry = self.entries[shard]
        # A table is verified when it is first opened, and again only if its file has changed since.
        state = _file_state(table_path(os.path.join(self.folder, entry["name"]), entry))
        table = self._tables[shard] = read_shard_table(self.folder, entry, verify=self._verified.get(shard) != state)
        self._verified[shard] = state
        if len(self._tables) > _OPEN_TABLES:
            self._tables.popitem(last=False)
        return table


def _expand(pattern: str) -> Iterator[str]:
    """Expands ``{000000..000127}.tar`` lazily: the caller stops at the first unknown name of a huge range."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    if int(first) > int(last):
        raise UserError(f"{pattern}: the range is reversed; write the smaller number first")
    for number in range(int(first), int(last) + 1):
        yield pattern[: match.start()] + str(number).zfill(len(first)) + pattern[match.end() :]


def _range(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _check_files(path: str, entry: Mapping[str, Any]) -> None:
    try:
        found = os.path.getsize(path)
        os.stat(table_path(path, entry))
    except OSError as error:
        raise UserFileNotFoundError(
            f"{error.filename}: {error.strerror}, but {INDEX} lists it; restore it, or leave its shard out of the range"
        ) from None
    if found != entry["bytes"]:
        raise UserError(
            f"{path}: has {found} bytes, but {entry['bytes']} according to {INDEX}; it is truncated, or comes from "
            "another packing"
        )


def _file_state(path: str) -> tuple[int, int]:
    """Size and modification time, or zeros if there is no such file."""
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns
