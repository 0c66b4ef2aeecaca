"""The journal of an unfinished prediction, from which an interrupted command resumes."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from imgcls.errors import UserError

SUFFIX = ".partial"


class PredictionJournal:
    """Rows of predictions in ``OUTPUT.partial``, appended one batch at a time and locked against a second command.

    A killed command leaves the rows of all finished batches. The last line may be incomplete and is then dropped.

    Args:
        output: the file that the rows are for.
        settings: what decides the content of the rows, in plain Python types.

    Raises:
        UserError: the file cannot be written, or another command writes it.
    """

    def __init__(self, output: str, settings: Mapping[str, Any]):
        self.path = output + SUFFIX
        self.settings = json.loads(json.dumps(settings))
        try:
            self._file = open(self.path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"{output}: cannot be written ({error.strerror}); name a folder that you can write"
            ) from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(f"{output}: another command is writing it; wait, or name another file") from error

    def start(self) -> None:
        """Removes what is there and writes the settings."""
        self._file.truncate(0)
        self._append([self.settings])

    def resume(self, records: Sequence[Mapping[str, Any]], batch_size: int) -> int:
        """Keeps the rows of complete batches and removes the rest.

        Args:
            records: of this command.
            batch_size: rows are kept in multiples of it, so that the batches are those of an uninterrupted command.

        Returns:
            The number of rows that are kept.

        Raises:
            UserError: the rows were made with other settings, or of other images.
        """
        lines = self._lines()
        settings, end = next(lines, ({}, 0))
        wrong = [key for key in {**settings, **self.settings} if settings.get(key) != self.settings.get(key)]
        if not settings:  # killed before anything was predicted
            self.start()
            return 0
        if wrong:
            changes = "; ".join(f"{key} was {settings.get(key)} and is now {self.settings.get(key)}" for key in wrong)
            raise UserError(
                f"--resume: {self.path} was made with other settings ({changes}); give the same, or --force"
            )
        ends = [end]
        for number, (row, row_end) in enumerate(lines):
            name = records[number]["file_name"] if number < len(records) else "no image"
            if row["file_name"] != name:
                raise UserError(
                    f"--resume: row {number + 1} of {self.path} is {row['file_name']}, and the sources now have {name} "
                    "there; give the same sources, or --force to start again"
                )
            ends.append(row_end)
        count = len(ends) - 1
        kept = count if count == len(records) else count - count % batch_size
        self._file.truncate(ends[kept])
        return kept

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the rows of one batch."""
        self._append(rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, in their order."""
        lines = self._lines()
        next(lines, None)
        yield from (row for row, _ in lines)

    def close(self, remove: bool = False) -> None:
        """Releases the lock; ``remove`` deletes the file, whose rows are then in the output."""
        if remove:
            with suppress(OSError):
                os.unlink(self.path)
        self._file.close()

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); free some space, then --resume"
            ) from error

    def _lines(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each complete line with the position after it; nothing after a line that is incomplete."""
        self._file.seek(0)  # a second file object would release the POSIX lock when it is closed
        end = 0
        for line in self._file:
            end += len(line)
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                return
            if not isinstance(content, dict):
                return
            yield content, end
