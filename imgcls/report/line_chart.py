"""Charts as SVG inside the page; colours come from its style sheet."""

import math
from collections.abc import Sequence

from imgcls.report.calibration import Reliability
from imgcls.report.curves import Series
from imgcls.report.markup import text

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40
COLOURS = 8
_MAX_MARKERS = 60


class Axes:
    """A coordinate system.

    Args:
        x: smallest and largest value.
        y: likewise.
        x_title: below the axis.
        y_title: beside the axis.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_title: str, y_title: str):
        self.x, self.y = x, y
        self.x_title, self.y_title = x_title, y_title

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Position of a point in the SVG."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def draw(self, content: str, label: str) -> str:
        """The SVG with ``content`` on top of grid, numbers and titles; ``label`` says what it shows."""
        left, bottom = self.place(self.x[0], self.y[0])
        right, top = self.place(self.x[1], self.y[1])
        parts = []
        for value in ticks(*self.x):
            x, _ = self.place(value, 0)
            parts.append(f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{_number(value)}</text>')
        for value in ticks(*self.y):
            _, y = self.place(0, value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
        middle = (top + bottom) / 2
        parts.append(
            f'<text x="{(left + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{text(self.x_title)}</text>'
        )
        parts.append(
            f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">'
            f"{text(self.y_title)}</text>"
        )
        box = f'data-box="{left:.1f} {bottom:.1f} {right:.1f} {top:.1f}"'
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(label)}" {box}>'
            f"{''.join(parts)}{content}</svg>"
        )

    def polyline(self, points: Sequence[tuple[float, float]], style: str) -> str:
        """A line through points."""
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.place(*point) for point in points))
        return f'<polyline class="{style}" points="{placed}"/>'


def line_chart(series: Sequence[Series], x_title: str, y_title: str, title: str, square: bool = False) -> str:
    """Lines with a legend, and a few markers that name their values under the pointer.

    Args:
        series: the lines, drawn in this order.
        x_title: below the axis.
        y_title: beside the axis.
        title: above the chart.
        square: both axes go from 0 to 1, and the legend gives no last values.
    """
    points = [point for line in series for point in line.points if all(map(math.isfinite, point))]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    if square:
        axes = Axes((0, 1), (0, 1), x_title, y_title)
    else:
        axes = Axes((min(0, *xs), max(*xs, 1e-9)), _pad(min(ys), max(ys)), x_title, y_title)
    drawn, legend = [], []
    for number, line in enumerate(series):
        style = f"s{number % COLOURS}{' dashed' if line.dashed else ''}"
        finite = [point for point in line.points if all(map(math.isfinite, point))]
        drawn.append(axes.polyline(finite, f"line {style}"))
        for x, y in finite if len(finite) <= _MAX_MARKERS and not square else ():
            across, down = axes.place(x, y)
            tip = f"{line.name}: {y:.5g} at {x_title} {x:.4g}"
            drawn.append(
                f'<circle class="{style}" cx="{across:.1f}" cy="{down:.1f}" r="2.6"><title>{text(tip)}</title></circle>'
            )
        last = f"{finite[-1][1]:.4g}" if finite and not square else ""
        legend.append(f'<li class="{style}"><bdi dir="auto">{text(line.name)}</bdi> <b>{last}</b></li>')
    svg = axes.draw("".join(drawn), title)
    return f'<figure class="chart"><h3>{text(title)}</h3>{svg}<ul class="legend">{"".join(legend)}</ul></figure>'


def reliability_chart(reliability: Reliability) -> str:
    """Bars of the accuracy in each range of the score, beside the line of perfect calibration."""
    axes = Axes((0, 1), (0, 1), "score of the predicted class", "share that is right")
    bins = len(reliability.counts)
    drawn = []
    for i, (count, confidence, accuracy) in enumerate(
        zip(reliability.counts, reliability.confidence, reliability.accuracy, strict=True)
    ):
        if count:
            left, top = axes.place(i / bins, accuracy)
            right, bottom = axes.place((i + 1) / bins, 0)
            tip = f"{count:,} images with a score of {confidence:.3f} on average: {100 * accuracy:.1f} % right"
            shade = 0.35 + 0.65 * math.sqrt(count / reliability.counts.max())
            drawn.append(
                f'<rect class="bin" x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" '
                f'height="{max(bottom - top, 0.5):.1f}" opacity="{shade:.2f}"><title>{text(tip)}</title></rect>'
            )
    drawn.append(axes.polyline([(0, 0), (1, 1)], "ideal"))
    return axes.draw("".join(drawn), "Reliability diagram")


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers in a range."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next((factor for factor in (5, 2) if (high - low) / (step * factor) >= 3), 1)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _pad(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or max(abs(high), 1) * 0.05
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
