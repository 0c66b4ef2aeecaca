"""``json:PATH``: a list of records, and the index that spares reading it."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.record_check import check_records
from imgcls.data.readers.record_table import build_table
from imgcls.data.readers.table_index import read_index, write_index
from imgcls.disk import open_text, read_text
from imgcls.errors import UserError


def read_json(path: str) -> RawDataset:
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
    raw = _read_records(path)
    after = os.stat(path)
    if before is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{path}: changed while it was read; run this again when nothing writes it")
    return write_index(path, raw, after.st_size)


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


def _read_records(path: str) -> RawDataset:
    try:
        return build_table(iterate_json(path), path)
    except RecursionError:
        raise _too_deep(path) from None


def _too_deep(path: str) -> UserError:
    return UserError(f"{path}: nested too deep for a list of records")


_CHUNK = 1 << 20  # characters
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def iterate_json(path: str) -> Iterator[Any]:
    """The items of the list in a JSON file.

    Raises:
        UserError: the file is missing, not JSON, or holds something else than a list. Items before the fault
            are handed out before it is found.
        RecursionError: an item is nested too deep.
    """
    with open_text(path) as file:
        text = _Text(file)
        try:
            if text.next_character() == "[":
                yield from _items(text)
            else:
                check_records(text.value(), path)  # says what it is instead of a list
        except json.JSONDecodeError as error:
            whole = json.JSONDecodeError(error.msg, read_text(path), text.dropped + error.pos)  # counts the lines
            raise UserError(f"{path}: not valid JSON ({whole})") from None


def _items(text: "_Text") -> Iterator[Any]:
    text.at += 1
    if text.next_character() == "]":
        text.at += 1
    else:
        while True:
            yield text.value()
            delimiter = text.next_character()
            if delimiter not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text.text, text.at)
            text.at += 1
            if delimiter == "]":
                break
            text.next_character()
    if text.next_character():
        raise json.JSONDecodeError("Extra data", text.text, text.at)


class _Text:
    """The part of a file that is being parsed: what lies before ``at`` is dropped when more is read."""

    def __init__(self, file: TextIO):
        self.file = file
        self.text = ""
        self.at = 0
        self.dropped = 0

    def next_character(self) -> str:
        """Skips white space; empty at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
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
                # A number at the end may go on. (One that is cut after its point is no record either way.)
                if end < len(self.text) or not self._read_more():
                    self.at = end
                    return value

    def _read_more(self) -> bool:
        # At least as much as there is: a value of any length is tried a few times only.
        read = self.file.read(max(_CHUNK, len(self.text) - self.at))
        if read:
            self.dropped += self.at
            self.text, self.at = self.text[self.at :] + read, 0
        return bool(read)
