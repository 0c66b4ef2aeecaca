"""Result files: whole or not at all, so that a killed run leaves no half table behind."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON; a NaN must have become None before (:func:`number`)."""
    with _replacing(path) as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes one table, ``\\n`` at line ends, None as an empty cell."""
    with _replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def number(value: float) -> float | None:
    """``value`` to six decimals, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else round(value, 6)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        # A file name need not be valid UTF-8; surrogateescape keeps its bytes.
        with open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
