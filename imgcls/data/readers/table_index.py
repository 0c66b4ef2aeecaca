"""The index of a JSON of records: its table as plain ``.npy`` files, which are mapped into memory instead of read."""

import json
import logging
import os
import shlex
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.record_table import RecordTable
from imgcls.disk import write_folder
from imgcls.errors import UserError

_logger = logging.getLogger(__name__)

_VERSION = 1
_META = "meta.json"


def index_folder(path: str) -> Path:
    """Where the index of a JSON file is: ``<name>.index`` beside ``<name>.json``."""
    return Path(path.removesuffix(".json") + ".index")


def write_index(path: str, raw: RawDataset, size: int) -> Path:
    """Writes the folder of the index, in place of an older one, and returns it.

    Args:
        path: the JSON file.
        raw: what was read from it, with a `RecordTable`.
        size: of the JSON file in bytes when it was read.

    Raises:
        UserError: the folder cannot be written.
    """
    table = raw.records
    if not isinstance(table, RecordTable):
        raise TypeError(f"{path}: only a RecordTable has an index, not {type(table).__name__}")

    def write(folder: Path) -> None:
        for name, column in table.columns.items():
            np.save(folder / f"{name}.npy", column, allow_pickle=False)
        meta = {
            "version": _VERSION,
            "json_size": size,
            "records": len(table),
            "multi_label": raw.multi_label,
            "named": raw.named,
            "checksums": {name: _checksum(column) for name, column in table.columns.items()},
            "classes": raw.classes,
        }
        (folder / _META).write_text(json.dumps(meta), encoding="utf-8")

    folder = index_folder(path)
    write_folder(folder, write, "the index lies beside its JSON: put that where you can write", replace=True)
    return folder


def read_index(path: str) -> RawDataset | None:
    """The records of a JSON file from its index, or None where there is no index that is as new as the JSON.

    Records are not checked again: that was done when the index was made, and checksums say that it is as it was.

    Raises:
        UserError: the index is damaged, or of another version.
    """
    folder = index_folder(path)
    if not folder.is_dir() or not os.path.isfile(path):
        return None
    renew = f"python tools/make_imagenet_json.py --index {shlex.quote(path)}"
    try:
        raw = _raw_dataset(path, folder)
    # What was cut off, edited or made by something else fails in ways that nobody can foresee.
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{folder}: cannot be used ({reason}); delete the folder, or make it anew with: {renew}"
        ) from None
    if raw is None:
        _logger.warning("%s: older than its JSON and not used; make it anew with: %s", folder, renew)
    else:
        _logger.info("%s: %d records from the index %s", path, len(raw.records), folder)
    return raw


def _raw_dataset(path: str, folder: Path) -> RawDataset | None:
    json_file, meta_file = os.stat(path), folder / _META
    if meta_file.stat().st_mtime_ns < json_file.st_mtime_ns:
        return None
    meta = json.loads(meta_file.read_text(encoding="utf-8"))
    if meta["version"] != _VERSION:
        raise ValueError(f"version {meta['version']}, but this package reads version {_VERSION}")
    if meta["json_size"] != json_file.st_size:
        return None
    columns = {name: _column(folder / f"{name}.npy", checksum) for name, checksum in meta["checksums"].items()}
    names = dict(enumerate(meta["classes"])) if meta["named"] else {}
    table = RecordTable(columns, names, os.path.dirname(path))
    if len(table) != meta["records"]:
        raise ValueError(f"{len(table)} records, but {meta['records']} in {_META}")
    return RawDataset(table, meta["classes"], meta["named"], meta["multi_label"], path)


def _column(file: Path, checksum: int) -> NDArray:
    # A plain view of the mapping: subclasses of arrays are slow to index.
    column = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    # This reads every page once, so that workers share them with this process from the start.
    if _checksum(column) != checksum:
        raise ValueError(f"{file.name} is not what was written")
    return column


def _checksum(column: NDArray) -> int:
    kind = f"{column.dtype.str} {column.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(column), zlib.crc32(kind))
