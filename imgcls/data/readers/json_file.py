"""``json:PATH``: a list of records, read from a JSON file or, if they are up to date, from its index or cache."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.record_check import check_records
from imgcls.data.readers.record_table import build_table
from imgcls.data.readers.table_index import read_cache, read_index, write_cache, write_index
from imgcls.disk import open_text, read_text
from imgcls.errors import UserError


def read_json(path: str) -> RawDataset:
    """Reads ``[{"file_name": ..., "label": 3, "class": "cat"}, ...]``.

    ``file_name`` is relative to the JSON's folder, or absolute. ``"labels": [0, 3]`` makes the set multi-label.
    ``"class"`` (a name, or one name for each of ``"labels"``) is optional, and so is ``"image_id"``, which defaults to
    the ``file_name``. Other keys are kept.

    An index beside the file is read instead if it is up to date (`index_json`). The columns of a large file are cached
    after the first reading (`write_cache`).

    Raises:
        UserError: names the file and the invalid record.
    """
    raw = read_index(path) or read_cache(path)
    if raw is None:
        raw, state, changed = _read_records(path)
        if not changed:
            write_cache(path, raw, state)
    return raw


def index_json(path: str) -> Path:
    """Checks a JSON file of records and writes its index beside it; returns the path of the index.

    Raises:
        UserError: the JSON is invalid or changes during the reading, or the index cannot be written.
    """
    raw, state, changed = _read_records(path)
    if changed:
        raise UserError(f"{path}: changed while it was read; run this again when nothing writes it")
    return write_index(path, raw, state)


def load_json(path: str) -> object:
    """The content of a JSON file.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    except RecursionError:
        raise _too_deep(path) from None


def _read_records(path: str) -> tuple[RawDataset, os.stat_result, bool]:
    """The records, the state of the file when they were read, and whether it changed meanwhile."""
    before = os.stat(path) if os.path.exists(path) else None
    try:
        raw = build_table(iterate_json(path), path)
    except RecursionError:
        raise _too_deep(path) from None
    after = os.stat(path)
    same = before is not None and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return raw, after, not same


def _too_deep(path: str) -> UserError:
    return UserError(f"{path}: nested too deep for a list of records")


_CHUNK = 1 << 18  # characters
_SPACE = re.compile(r"[ \t\n\r]*")
# From the end of one object to the first key of the next.
_BOUNDARY = re.compile(r'\}[ \t\n\r]*,[ \t\n\r]*\{[ \t\n\r]*"[^"\\]*"')
_DECODER = json.JSONDecoder()


def iterate_json(path: str) -> Iterator[list[Any]]:
    """The items of the list in a JSON file, in batches.

    Raises:
        UserError: the file is missing, not JSON, or does not hold a list. The items before an error are yielded before
            it is raised.
        RecursionError: an item is nested too deep.
    """
    with open_text(path) as file:
        text = _Text(file)
        try:
            if text.next_character() == "[":
                yield from _batches(text)
            else:
                check_records(text.value(), path)  # raises: this is not a list
        except json.JSONDecodeError as error:
            whole = json.JSONDecodeError(error.msg, read_text(path), text.dropped + error.pos)  # counts the lines
            raise UserError(f"{path}: not valid JSON ({whole})") from None


def _batches(text: "_Text") -> Iterator[list[Any]]:
    text.at += 1
    items: list[Any] = []
    try:
        more = text.next_character() != "]"
        while more:
            items.append(text.value())
            delimiter = text.next_character()
            if delimiter not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text.text, text.at)
            more = delimiter == ","
            if more:
                text.at += 1
                text.next_character()
                if text.fresh:
                    yield items
                    items = text.read_ahead()
        text.at += 1
        if text.next_character():
            raise json.JSONDecodeError("Extra data", text.text, text.at)
    except (ValueError, RecursionError):  # a record before this error may be invalid, which is reported first
        yield items
        raise
    yield items


class _Text:
    """The part of a file that is being parsed. The next value begins at ``at``; earlier text is dropped."""

    def __init__(self, file: TextIO):
        self.file = file
        self.text = ""
        self.at = 0
        self.dropped = 0
        self.fresh = False  # whether `read_ahead` has not yet seen this text

    def next_character(self) -> str:
        """Skips white space; empty at the end of the file."""
        while True:
            if space := _SPACE.match(self.text, self.at):
                self.at = space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_more():
                return ""

    def value(self) -> Any:
        """The value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self._read_more():
                    raise
            else:
                # A number at the end of the text may be incomplete.
                if end < len(self.text) or not self._read_more():
                    self.at = end
                    return value

    def read_ahead(self) -> list[Any]:
        """Parses most of the objects in this text in one call, which is much faster than `value` for each object.

        The text is cut where it last looks like the boundary between the first two objects. If that is not the end of
        an object, the text is not a valid list: the result is empty, and the position does not change.
        """
        self.fresh = False
        try:
            end = _DECODER.raw_decode(self.text, self.at)[1]
            boundary = _BOUNDARY.match(self.text, end - 1)
            if boundary is None:
                return []
            last = self.text.rfind(boundary[0], end - 1)
            items = json.loads(f"[{self.text[self.at : last + 1]}]")
        except (json.JSONDecodeError, RecursionError):
            return []
        self.at = last + boundary[0].index("{")
        return items

    def _read_more(self) -> bool:
        # Doubling the text limits how often a long value is parsed.
        read = self.file.read(max(_CHUNK, len(self.text) - self.at))
        if read:
            self.dropped += self.at
            self.text, self.at, self.fresh = self.text[self.at :] + read, 0, True
        return bool(read)
