"""The items of a JSON list one after the other: neither the list nor the text is held as a whole."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from imgcls.data.datasets.files import open_text, read_text
from imgcls.data.datasets.record_check import check_records
from imgcls.errors import UserError

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
