"""Charts as SVG."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from imgcls.report.curves import Series
from imgcls.report.line_chart import Axes, line_chart, ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.83, 1.13), (0, 12), (33, 92), (0, 123456), (1e-5, 2e-5), (-3, 4)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    assert len({round(b - a, 12) for a, b in pairwise(found)}) == 1


def test_a_chart_is_well_formed_and_places_points():
    lines = [Series("<a> & b", [(0, 1.0), (10, 3.0), (5, float("nan"))]), Series("one", [(10, 2.0)], dashed=True)]
    chart = line_chart(lines, "epoch", "loss", 'the "loss"')
    root = ElementTree.fromstring(chart)
    assert [node.get("class") for node in root.iter("polyline")] == ["line s0", "line s1 dashed"]
    (first, _), (x, y) = (map(float, p.split(",")) for p in root.find(".//polyline").get("points").split())
    left, bottom, right, top = map(float, root.find("svg").get("data-box").split())
    assert left == first and x == right and top < y < bottom
    assert "nan" not in chart and len(re.findall("<circle", chart)) == 3


def test_nothing_to_draw_and_flat_lines():
    assert line_chart([], "x", "y", "t") == "" and line_chart([Series("a", [(1, float("nan"))])], "x", "y", "t") == ""
    assert "polyline" in line_chart([Series("a", [(0, 0.0), (0, 0.0)])], "x", "y", "t")


def test_axes_map_corners():
    axes = Axes((0, 1), (0, 1), "x", "y")
    assert axes.place(0, 0)[0] < axes.place(1, 1)[0] and axes.place(0, 0)[1] > axes.place(1, 1)[1]
