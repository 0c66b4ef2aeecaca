"""``json:PATH``: a list of records, and the index that spares reading it."""

import json
import os
from pathlib import Path

from imgcls.data.datasets.files import read_text
from imgcls.data.datasets.index import read_index, write_index
from imgcls.data.datasets.json_stream import iterate_json
from imgcls.data.datasets.records import Listing
from imgcls.data.datasets.table_builder import build_table
from imgcls.errors import UserError


def read_json(path: str) -> Listing:
    """Reads ``[{"file_name": ..., "label": 3, "class": "cat"}, ...]``, or its index where that is newer.

    ``file_name`` is relative to the JSON's folder, or absolute. ``"labels": [0, 3]`` makes the set
    multi-label. ``"class"`` (a name, or one name for each of ``"labels"``) is optional, and so is
    ``"image_id"``, which is else the ``file_name``; other keys stay.

    Raises:
        UserError: names the file and the record that cannot be used.
    """
    return read_index(path) or _read_records(path)


def index_json(path: str) -> Path:
    """Checks a JSON file of records and writes its index beside it; returns the index's folder.

    Raises:
        UserError: the JSON cannot be used or changes meanwhile, or the folder cannot be written.
    """
    before = os.stat(path) if os.path.isfile(path) else None
    listing = _read_records(path)
    after = os.stat(path)
    if before is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{path}: changed while it was read; run this again when nothing writes it")
    return write_index(path, listing, after.st_size)


def load_json(path: str) -> object:
    """Whatever a JSON file holds.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    except RecursionError:
        raise _too_deep(path) from None


def _read_records(path: str) -> Listing:
    try:
        return build_table(iterate_json(path), path)
    except RecursionError:
        raise _too_deep(path) from None


def _too_deep(path: str) -> UserError:
    return UserError(f"{path}: nested too deep for a list of records")
