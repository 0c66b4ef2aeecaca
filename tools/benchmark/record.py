"""The table of ratios that every benchmark run adds to, and the ranges over machine days that the docs show."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from benchmark.compare import spread
from benchmark.report import Report, show_ratio
from imgcls.disk import read_text, replace_file
from imgcls.errors import UserError

# A range over fewer machine days is marked in the summary.
ENOUGH_DAYS = 3


@dataclass(frozen=True)
class Ratio:
    """One row of the table: the ratio of candidate to reference, with its quartiles over the rounds."""

    date: str  # UTC, YYYY-MM-DD
    command: str  # the word after tools/benchmark.py
    measured: str  # title of the comparison
    candidate: str
    reference: str
    ratio: float  # median over the rounds
    lower_quartile: float
    upper_quartile: float
    rounds: int
    processor: str
    cores: int  # that the process was allowed to use
    gpu: str  # or "none"
    torch: str


HEADER = [field.name for field in fields(Ratio)]


def append_ratios(path: Path, report: Report, machine: Mapping[str, str | int | float], date: str = "") -> None:
    """Adds one row for each ratio of a report; creates the file if there is none.

    Args:
        path: the CSV file.
        report: tables without references add nothing.
        machine: from ``describe_machine``.
        date: of the measurement; today in UTC if empty.

    Raises:
        UserError: the file has other columns, or cannot be read or written.
    """
    old = read_ratios(path) if path.is_file() else []
    new = _ratios(report, machine, date or datetime.now(timezone.utc).date().isoformat())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *map(astuple, [*old, *new])])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be created ({error.strerror}); set --record to another file") from error

    with replace_file(path, "set --record to another file") as file:
        file.write(text.getvalue().encode())


def read_ratios(path: Path) -> list[Ratio]:
    """Reads all rows of the table, oldest first.

    Raises:
        UserError: the file does not exist, or is not such a table.
    """
    header, *rows = list(csv.reader(io.StringIO(read_text(str(path))))) or [[]]
    if header != HEADER:
        raise UserError(f"{path}: expected the columns {','.join(HEADER)}; set --record to another file")
    try:
        return [_parse(row) for row in rows]
    except ValueError as error:
        raise UserError(f"{path}: a row is damaged ({error}); mend it, or set --record to another file") from error


def summary_rows(ratios: Iterable[Ratio]) -> list[str]:
    """A Markdown table with the range of each ratio over machine days.

    A machine day is one date on one kind of processor and GPU; several runs on it count as one, with their median.
    """
    days: dict[tuple[str, ...], dict[tuple[str, ...], list[Ratio]]] = defaultdict(lambda: defaultdict(list))
    for row in ratios:
        key = (row.command, row.measured, row.candidate, row.reference)
        days[key][row.date, row.processor, row.gpu].append(row)
    lines = [
        "| measured | candidate | compared to | ratio | machine days | torch |",
        "|---|---|---|---|---|---|",
    ]
    for (command, measured, candidate, reference), by_day in days.items():
        medians = [median(row.ratio for row in rows) for rows in by_day.values()]
        versions = sorted({row.torch for rows in by_day.values() for row in rows})
        few = f" (fewer than {ENOUGH_DAYS})" if len(by_day) < ENOUGH_DAYS else ""
        cells = [f"{measured} (`{command}`)", candidate, reference, _range(medians), f"{len(by_day)}{few}"]
        lines.append(f"| {' | '.join([*cells, ', '.join(versions)])} |")
    return lines


def _ratios(report: Report, machine: Mapping[str, str | int | float], date: str) -> list[Ratio]:
    found = []
    for table in report.tables:
        for reference in table.references:
            for candidate in table.values:
                if candidate == reference:
                    continue
                low, middle, high = (round(value, 4) for value in spread(table.ratios(candidate, reference)))
                found.append(
                    Ratio(
                        date=date,
                        command=report.what,
                        measured=table.title,
                        candidate=candidate,
                        reference=reference,
                        ratio=middle,
                        lower_quartile=low,
                        upper_quartile=high,
                        rounds=table.rounds,
                        processor=str(machine["processor"]),
                        cores=int(machine["cores"]),
                        gpu=str(machine["GPU"]),
                        torch=str(machine["torch"]),
                    )
                )
    return found


def _parse(row: Sequence[str]) -> Ratio:
    kinds: list[type] = [field.type for field in fields(Ratio)]  # type: ignore[misc]
    return Ratio(*(kind(cell) for kind, cell in zip(kinds, row, strict=True)))


def _range(values: Sequence[float]) -> str:
    low, high = show_ratio(min(values)), show_ratio(max(values))
    return low if low == high else f"{low} to {high}"
