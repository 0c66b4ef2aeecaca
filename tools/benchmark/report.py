"""The figures of a command as text, as JSON and as a bar chart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figure import BLUE, GREY, new_figure, plain, save

from benchmark.compare import Table, spread
from imgcls.disk import write_text


@dataclass
class Report:
    """All that one command measured.

    Attributes:
        what: ``"input"``, ``"step"``, ...
        tables: the comparisons.
        facts: single figures, by name.
    """

    what: str
    tables: list[Table] = field(default_factory=list)
    facts: dict[str, str | int | float] = field(default_factory=dict)


def write_report(report: Report, machine: Mapping[str, str | int | float], path: Path) -> None:
    """Prints the report and writes it to ``path``, with a bar chart as the PNG next to it.

    Args:
        report: at least one table.
        machine: from ``describe_machine``, called before the first comparison.
        path: the JSON file.

    Raises:
        UserError: the files cannot be written.
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
    """One line per candidate: median and quartiles of its values, and of its ratio to each reference."""
    rows = [[table.title, table.unit, "quartiles", *(f"x {name}" for name in table.references)]]
    for name, values in table.values.items():
        low, middle, high = spread(values)
        row = [name, show_number(middle), f"{show_number(low)} - {show_number(high)}"]
        for reference in table.references:
            low, middle, high = spread(table.ratios(name, reference))
            row.append(f"{show_ratio(middle)} ({show_ratio(low)} - {show_ratio(high)})")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    cut = f" of {table.planned}; the time was up (--minutes)" if table.rounds < table.planned else ""
    return [*lines, f"rounds: {table.rounds}{cut}"]


def draw_bars(tables: Sequence[Table], path: Path) -> Path:
    """Draws medians with quartiles, one group of bars per table, ours in blue; returns ``path``.

    Each bar is labelled with its ratio to each reference, or with its median if there is no reference.

    Raises:
        UserError: the PNG cannot be written.
    """
    heights = [1.1 + 0.36 * len(table.values) for table in tables]
    figure = new_figure(9, sum(heights))
    grid = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    for axes, table in zip(grid[:, 0], tables, strict=True):
        names = list(table.values)
        spreads = [spread(values) for values in table.values.values()]
        errors = [[middle - low for low, middle, _ in spreads], [high - middle for _, middle, high in spreads]]
        colours = [BLUE if name.startswith("imgcls") else GREY for name in names]
        medians = [middle for _, middle, _ in spreads]
        axes.barh(names, medians, xerr=errors, color=colours, height=0.7, error_kw={"lw": 1, "capsize": 2})
        for row, (name, (_, middle, high)) in enumerate(zip(names, spreads, strict=True)):
            ratios = [f"{show_ratio(spread(table.ratios(name, other))[1])}x" for other in table.references]
            label = ", ".join(ratios) or show_number(middle)
            axes.annotate(label, (high, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        references = f"; ratios to: {', '.join(table.references)}" if table.references else ""
        axes.set_xlabel(plain(table.unit + references, 120), fontsize=8)
        axes.set_title(plain(table.title, 90), fontsize=10, loc="left")
        axes.set_yticks(range(len(names)), [plain(name, 40) for name in names], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def show_number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show_ratio(value: float) -> str:
    """Two decimals, or two significant digits below 0.1."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _as_json(table: Table) -> dict[str, Any]:
    rows = []
    for name, values in table.values.items():
        ratios = {other: _summary(table.ratios(name, other)) for other in table.references}
        rows.append({"name": name, **_summary(values), "rounds": values, "ratio": ratios})
    return {"title": table.title, "unit": table.unit, "rows": rows}


def _summary(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("lower_quartile", "median", "upper_quartile"), spread(values), strict=True))
