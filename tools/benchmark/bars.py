"""Figures as bars."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.race import Table, spread
from imgcls.report.figure import BLUE, GREY, new_figure, plain, save


def draw_bars(tables: Sequence[Table], path: Path) -> Path:
    """Draws medians with quartiles, one group of bars a table, ours in blue; returns ``path``.

    Beside a bar is its ratio to each reference, or its median where there is none.

    Raises:
        UserError: the PNG cannot be written.
    """
    heights = [1.1 + 0.36 * len(table.values) for table in tables]
    figure = new_figure(9, sum(heights))
    for axes, table in zip(
        figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0], tables, strict=True
    ):
        names = list(table.values)
        spreads = [spread(values) for values in table.values.values()]
        reach = [[middle - low for low, middle, _ in spreads], [high - middle for _, middle, high in spreads]]
        colours = [BLUE if name.startswith("imgcls") else GREY for name in names]
        axes.barh(
            names, [s[1] for s in spreads], xerr=reach, color=colours, height=0.7, error_kw={"lw": 1, "capsize": 2}
        )
        for place, (name, (_, middle, high)) in enumerate(zip(names, spreads, strict=True)):
            ratios = [f"{show_ratio(spread(table.ratios(name, other))[1])}x" for other in table.references]
            told = ", ".join(ratios) or show_number(middle)
            axes.annotate(told, (high, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        compared = f"; ratios to: {', '.join(table.references)}" if table.references else ""
        axes.set_xlabel(plain(table.unit + compared, 120), fontsize=8)
        axes.set_title(plain(table.title, 90), fontsize=10, loc="left")
        axes.set_yticks(range(len(names)), [plain(name, 40) for name in names], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def show_number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show_ratio(value: float) -> str:
    """Two digits behind the point, or two that are not 0."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
