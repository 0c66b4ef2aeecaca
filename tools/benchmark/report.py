"""Figures as text and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.bars import draw_bars, show_number, show_ratio
from benchmark.race import Table, spread
from imgcls.disk import write_text


@dataclass
class Report:
    """All that one command has measured.

    Attributes:
        what: ``"input"``, ``"step"``, ...
        tables: races.
        facts: single figures by what they are.
    """

    what: str
    tables: list[Table] = field(default_factory=list)
    facts: dict[str, str | int | float] = field(default_factory=dict)


def write_report(report: Report, machine: dict[str, str | int | float], path: Path) -> None:
    """Prints the report and writes it to ``path`` and, as bars, to the PNG beside it.

    Args:
        report: at least one table.
        machine: as ``describe_machine`` described it before the first race.
        path: the JSON file.

    Raises:
        UserError: they cannot be written.
    """
    content = {
        "what": report.what,
        "machine": machine,
        "facts": report.facts,
        "tables": [_as_json(table) for table in report.tables],
    }
    for table in report.tables:
        print("\n" + "\n".join(table_lines(table)))
    if report.facts:
        print("\n" + "\n".join(f"{name}: {value}" for name, value in report.facts.items()))
    print("\nmachine: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    write_text(path, json.dumps(content, indent=2) + "\n")
    print(path)
    print(draw_bars(report.tables, path.with_suffix(".png")))


def table_lines(table: Table) -> list[str]:
    """Median and quartiles of every candidate, and the median and quartiles of its ratio to each reference."""
    rounds = len(next(iter(table.values.values())))
    heads = [table.title, table.unit, "quartiles", *(f"x {name}" for name in table.references)]
    rows = [heads]
    for name, values in table.values.items():
        low, middle, high = spread(values)
        row = [name, show_number(middle), f"{show_number(low)} - {show_number(high)}"]
        for reference in table.references:
            less, ratio, more = spread(table.ratios(name, reference))
            row.append(f"{show_ratio(ratio)} ({show_ratio(less)} - {show_ratio(more)})")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(_pad(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows
    ]
    return [*lines, f"rounds: {rounds}"]


def _as_json(table: Table) -> dict[str, Any]:
    rows = []
    for name, values in table.values.items():
        ratios = {other: _summary(table.ratios(name, other)) for other in table.references}
        rows.append({"name": name, **_summary(values), "rounds": values, "ratio": ratios})
    return {"title": table.title, "unit": table.unit, "rows": rows}


def _summary(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("lower_quartile", "median", "upper_quartile"), spread(values), strict=True))


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)
