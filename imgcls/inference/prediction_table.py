"""Predictions as rows, and the CSV, JSON Lines and Parquet files that they are written to."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

from imgcls.disk import replace_file
from imgcls.errors import UserError
from imgcls.inference.prediction import Prediction

FORMATS = (".csv", ".jsonl", ".parquet")
_PARQUET_ROWS = 10_000  # in a row group
Row = dict[str, Any]


def as_row(prediction: Prediction, box: Sequence[float] | None = None) -> Row:
    """A prediction in plain Python types.

    ``"box"`` is there for a box, ``"above_threshold"`` with thresholds, and ``"error"`` in place of the classes for an
    image that cannot be read.
    """
    row: Row = {"file_name": prediction.source}
    if box is not None:
        row["box"] = list(box)
    if prediction.error:
        return {**row, "error": prediction.error}
    row |= {"classes": prediction.classes, "probabilities": [round(value, 6) for value in prediction.probabilities]}
    if prediction.above_threshold is not None:
        row["above_threshold"] = prediction.above_threshold
    return row


def check_format(path: str) -> None:
    """Refuses an output file before anything is predicted.

    Raises:
        UserError: the format is unknown, or its package is not installed.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise UserError(f"--output {path}: the name ends with {suffix or 'nothing'}; allowed: {', '.join(FORMATS)}")
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(f'--output {path}: needs pyarrow: pip install -e ".[parquet]", or name a .csv') from None


def write_rows(path: str, rows: Iterable[Row], topk: int, boxes: bool, thresholds: bool) -> None:
    """Writes rows of `as_row` in one step, in the format that the name of the file ends with.

    Args:
        path: see `check_format`.
        rows: in the order of the images.
        topk: number of classes in a row.
        boxes: whether some row may have a box.
        thresholds: whether rows have the classes above their thresholds.

    Raises:
        UserError: the file cannot be written.
    """
    writers: dict[str, Callable[[BinaryIO, Iterable[Row]], None]] = {
        ".csv": lambda file, rows: _write_csv(file, rows, topk, boxes, thresholds),
        ".jsonl": _write_json_lines,
        ".parquet": lambda file, rows: _write_parquet(file, rows, boxes, thresholds),
    }
    with replace_file(path) as file:
        writers[os.path.splitext(path)[1].lower()](file, rows)


def _write_csv(file: BinaryIO, rows: Iterable[Row], topk: int, boxes: bool, thresholds: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}{'' if k == 1 else f'_{k}'}" for k in range(1, topk + 1) for name in ("class", "probability")]
    extra = [*(["box"] if boxes else [])], [*(["above_threshold"] if thresholds else [])]
    writer.writerow(["file_name", *extra[0], *columns, *extra[1], "error"])
    for row in rows:
        pairs = zip(row.get("classes", []), row.get("probabilities", []), strict=True)
        cells = [cell for name, value in pairs for cell in (name, f"{value:.6f}")]
        cells += [""] * (2 * topk - len(cells))
        box = [" ".join(f"{side:g}" for side in row.get("box", []))] if boxes else []
        # A separator inside a class name would split it.
        above = [";".join(name.replace(";", ",") for name in row.get("above_threshold", []))] if thresholds else []
        writer.writerow([row["file_name"], *box, *cells, *above, row.get("error", "")])
    text.detach()


def _write_json_lines(file: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        file.write(line.encode("utf-8", errors="surrogateescape"))


def _write_parquet(file: BinaryIO, rows: Iterable[Row], boxes: bool, thresholds: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float32()
    fields = [("file_name", text), *([("box", pyarrow.list_(number))] if boxes else [])]
    fields += [("classes", pyarrow.list_(text)), ("probabilities", pyarrow.list_(number))]
    fields += [*([("above_threshold", pyarrow.list_(text))] if thresholds else []), ("error", text)]
    schema = pyarrow.schema(fields)
    with parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(map(_valid_text, rows), _PARQUET_ROWS):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _valid_text(row: Row) -> Row:
    """Parquet holds valid UTF-8 only: the bytes of other file names become U+FFFD."""
    name = row["file_name"].encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return {**row, "file_name": name}


def _groups(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while group := list(islice(rows, size)):
        yield group
