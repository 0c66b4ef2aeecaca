"""``csv:PATH``: a table with one image per row and labels by name."""

import csv
import io
import os
import re
from collections.abc import Sequence

from imgcls.data.dataset import RawDataset
from imgcls.disk import read_text
from imgcls.errors import UserError


def read_csv(path: str) -> RawDataset:
    """Reads the columns ``file_name`` and ``label``, or ``labels`` separated by ``;`` (empty for no label).

    Labels are class names, even if they are whole numbers. Classes are sorted by value if all names are whole numbers,
    and alphabetically otherwise. ``file_name`` is absolute or relative to the folder of the CSV file. ``image_id`` is
    optional, ``height`` and ``width`` become ints, and other columns are kept as text.

    Raises:
        UserError: the message has the file and the line or columns that cannot be used.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        multi_label = _check_columns(path, rows.fieldnames or [])
        records = [_record(path, rows.line_num, row, multi_label) for row in rows]
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.reader.line_num}: not valid CSV ({error})") from None
    if not records:
        raise UserError(f"{path}: has no rows below the header")
    if multi_label:
        classes = _sorted({name for record in records for name in record["labels"]})
    else:
        classes = _sorted({record["label"] for record in records})
    index = {name: i for i, name in enumerate(classes)}
    folder = os.path.dirname(path)
    for record in records:
        record["file_name"] = os.path.join(folder, record["file_name"])
        if multi_label:
            record["labels"] = sorted({index[name] for name in record["labels"]})
        else:
            record["label"] = index[record["label"]]
    return RawDataset(records, classes, True, multi_label, path)


def _check_columns(path: str, columns: Sequence[str]) -> bool:
    """Checks the header, and returns whether the table is multi-label."""
    if len(set(columns)) != len(columns):
        raise UserError(f"{path}: a column comes twice: {', '.join(columns)}")
    if "file_name" not in columns or ("label" in columns) == ("labels" in columns):
        raise UserError(
            f"{path}: needs the columns file_name and label, or file_name and labels; "
            f"got: {', '.join(columns) or 'none'}"
        )
    return "labels" in columns


def _record(path: str, line: int, row: dict, multi_label: bool) -> dict:
    prefix = f"{path}: line {line}"
    if None in row or None in row.values():
        raise UserError(
            f"{prefix}: has {'more' if None in row else 'fewer'} cells than the header; quote commas in names"
        )
    if not row["file_name"]:
        raise UserError(f"{prefix}: the file_name is empty")
    row["image_id"] = row.get("image_id") or row["file_name"]
    if multi_label:
        row["labels"] = [name for part in row["labels"].split(";") if (name := part.strip())]
    else:
        row["label"] = row["label"].strip()
        if not row["label"]:
            raise UserError(f"{prefix}: the label is empty; only a column named labels may have empty cells")
    for name in row["labels"] if multi_label else (row["label"],):
        if re.fullmatch(r"-\d+", name):
            raise UserError(f"{prefix}: the label {name} is negative; a label is a class name or a number from 0 on")
    for side in ("height", "width"):
        if side in row:
            if not re.fullmatch(r"\d+", row[side]):
                raise UserError(f"{prefix}: {side} must be a whole number of pixels, got {row[side]!r}")
            row[side] = int(row[side])
    return row


def _sorted(names: set[str]) -> list[str]:
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
