"""The columns of a JSON of records, kept in a file: as an index beside the JSON, or in the user's cache folder."""

import hashlib
import logging
import os
import shlex
from pathlib import Path
from typing import Any

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.record_table import RecordTable
from imgcls.data.table_file import DamagedTableError, read_table, write_table
from imgcls.disk import replace_file
from imgcls.errors import UserError

_logger = logging.getLogger(__name__)

_VERSION = 2
CACHE_VARIABLE = "IMGCLS_CACHE"
# A smaller JSON is read in less than two seconds.
_MIN_CACHED_BYTES = 16 * 2**20


def index_path(path: str) -> Path:
    """The index of a JSON file: ``<name>.index`` beside ``<name>.json``."""
    return Path(path.removesuffix(".json") + ".index")


def write_index(path: str, raw: RawDataset, state: os.stat_result) -> Path:
    """Writes the index of the JSON file ``path``, replaces an older one, and returns its path.

    Args:
        path: the JSON file.
        raw: its content, with a `RecordTable`.
        state: the ``os.stat`` of the JSON file from when it was read.

    Raises:
        UserError: the file cannot be written.
    """
    file = index_path(path)
    _write(file, raw, {"json_size": state.st_size})
    return file


def read_index(path: str) -> RawDataset | None:
    """The records of a JSON file from its index, or None if there is no index or it is older than the JSON.

    The records are not checked again: they were checked before they were written, and a checksum protects them.

    Raises:
        UserError: the index is damaged.
    """
    file = index_path(path)
    if not file.exists() or not os.path.isfile(path):
        return None
    command = f"python tools/make_imagenet_json.py --index {shlex.quote(path)}"
    if file.is_dir():
        _logger.warning("%s: from an older version and not used; delete it and create it again: %s", file, command)
        return None
    json_state = os.stat(path)
    try:
        raw = None
        if file.stat().st_mtime_ns >= json_state.st_mtime_ns:
            raw = _read(file, path, {"json_size": json_state.st_size})
    except (OSError, DamagedTableError) as error:
        raise UserError(f"{file}: unusable ({error}); delete it, or create it again: {command}") from None
    if raw is None:
        _logger.warning("%s: not up to date with its JSON and not used; create it again: %s", file, command)
    else:
        _logger.info("%s: %d records from the index %s", path, len(raw.records), file)
    return raw


def write_cache(path: str, raw: RawDataset, state: os.stat_result) -> None:
    """Caches the content of a JSON file of at least 16 MiB; a failure is only logged.

    The file is ``imgcls/json/<hash of the JSON's path>`` below ``$XDG_CACHE_HOME`` or ``~/.cache``. The environment
    variable ``IMGCLS_CACHE`` names another folder in place of ``~/.cache/imgcls``; if it is empty, nothing is cached.
    The arguments are those of `write_index`.
    """
    file = _cache_path(path, state)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, raw, _cache_key(path, state))
    except (OSError, UserError) as error:
        _logger.info("%s: not cached for the next reading (%s)", path, error)
    else:
        _logger.info("%s: cached in %s for the next reading", path, file)


def read_cache(path: str) -> RawDataset | None:
    """The content of a JSON file from the cache, or None if it is not there, damaged, or not up to date."""
    try:
        state = os.stat(path)
        file = _cache_path(path, state)
        raw = None if file is None else _read(file, path, _cache_key(path, state))
    except (OSError, DamagedTableError) as error:
        _logger.debug("%s: not read from the cache (%s)", path, error)
        return None
    if raw is not None:
        _logger.info("%s: %d records from the cache %s", path, len(raw.records), file)
    return raw


def _cache_path(path: str, state: os.stat_result) -> Path | None:
    folder = os.environ.get(CACHE_VARIABLE)
    if folder is None:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "imgcls")
    folder = os.path.expanduser(folder)
    # Without a home folder, the tilde is still there.
    if not folder or folder.startswith("~") or state.st_size < _MIN_CACHED_BYTES:
        return None
    return Path(folder, "json", hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32])


def _cache_key(path: str, state: os.stat_result) -> dict[str, Any]:
    # A path that is not valid UTF-8 cannot be stored as it is; its ASCII form can.
    return {
        "json_path": ascii(os.path.realpath(path)),
        "json_size": state.st_size,
        "json_mtime_ns": state.st_mtime_ns,
    }


def _write(file: Path, raw: RawDataset, key: dict[str, Any]) -> None:
    table = raw.records
    if not isinstance(table, RecordTable):
        raise TypeError(f"{file}: only a RecordTable can be stored, not {type(table).__name__}")
    about = {"version": _VERSION, **key, "named": raw.named, "multi_label": raw.multi_label, "classes": raw.classes}
    with replace_file(file, "it must be a file in a folder that you can write") as stream:
        write_table(stream, table.columns, about)


def _read(file: Path, path: str, key: dict[str, Any]) -> RawDataset | None:
    """The stored content of the JSON file ``path``, or None if it was stored under another key or version."""
    columns, about, _ = read_table(file)
    if any(about.get(name) != value for name, value in {"version": _VERSION, **key}.items()):
        return None
    names = dict(enumerate(about["classes"])) if about["named"] else {}
    table = RecordTable(columns, names, os.path.dirname(path))
    return RawDataset(table, about["classes"], about["named"], about["multi_label"], path)
