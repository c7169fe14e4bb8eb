import re
from xml.etree import ElementTree

import numpy as np
import pytest

from secateur.evaluation.charts import bar_rows, dot_rows, histogram, line_chart
from secateur.evaluation.svg import Axis, Drawing, Series, around, tick_step


def parse(markup):
    return ElementTree.fromstring(str(markup))


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        (0.97, 1, ["97 %", "98 %", "99 %", "100 %"]),
        (0.994, 1, ["99.4 %", "99.6 %", "99.8 %", "100.0 %"]),
    ],
)
def test_ticks_are_round_and_within_the_axis(low, high, texts):
    ticks = Axis(low, high, "accuracy", percent=True).ticks()
    assert [text for _, text in ticks] == texts
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, _ in ticks)


def test_tick_texts_have_thousands_and_a_real_minus():
    assert [t for _, t in Axis(0, 10_000, "samples").ticks()] == ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]
    assert next(t for _, t in Axis(-1, 1, "score").ticks()) == "−1.0"  # noqa: RUF001
    assert "−0.0" not in [t for _, t in Axis(-1, 1, "score").ticks()]  # noqa: RUF001


@pytest.mark.parametrize("values", [[0.3], [0.5, 0.5], [0.0], [0.99, 1.0], [-3.0, 12.0], [1e-4, 2e-4]])
def test_axes_hold_their_values(values):
    low, high = around(values)
    assert low <= min(values)
    assert high >= max(values)
    assert low < high
    assert tick_step(low, high) > 0
    assert around([0.98, 1.0], 0, 1)[1] == 1


def test_points_lie_where_their_values_say():
    x, y = Axis(0, 10, "x"), Axis(0, 1, "y")
    drawing = Drawing("d", 250, x, y)
    root = parse(line_chart("d", [Series("a", "arm-0", [0, 10], [0, 1])], x, y))
    points = root.find("polyline").get("points").split()
    assert points[0] == f"{drawing.left:.0f},{drawing.bottom:.0f}"
    assert points[1] == f"{drawing.right:.0f},{drawing.top:.0f}"


def test_bars_of_a_histogram_are_as_high_as_their_counts_and_stand_on_each_other():
    first, second = np.array([0.1, 0.1, 0.9, -5.0]), np.array([0.1])
    root = parse(histogram("h", [("a", "wrong", first), ("b", "right", second)], Axis(0, 1, "score"), bins=2))
    bars = [(r.find("title").text, float(r.get("y")), float(r.get("height"))) for r in root.findall("rect")]
    assert [b[0] for b in bars] == ["a: 3", "a: 1", "b: 1"]
    assert bars[0][2] == pytest.approx(3 * bars[1][2], abs=0.2)
    assert bars[2][1] + bars[2][2] == pytest.approx(bars[0][1], abs=0.2)


def test_rows_show_means_and_parts():
    dots = parse(dot_rows("d", [("zero", [Series("full", "arm-1", [0.5, 0.7], ())])], Axis(0, 1, "accuracy")))
    assert [p.find("title").text for p in dots.findall("path") if p.find("title") is not None] == ["full: 60.0%"]
    bars = parse(
        bar_rows(
            "b", [("zero", [("hard", "reason-hard", 0.1), ("redundant", "reason-redundant", 0.3)])], Axis(0, 1, "x")
        )
    )
    first, second = bars.findall("rect")
    assert float(second.get("x")) == pytest.approx(float(first.get("x")) + float(first.get("width")) + 0.6, abs=0.2)
    assert float(second.get("width")) > 2.5 * float(first.get("width"))


def test_texts_are_escaped_and_long_labels_cut():
    name = "<script>" + "x" * 80
    markup = str(bar_rows("<b>", [(name, [("<i>", "wrong", 0.1)])], Axis(0, 1, "x")))
    assert "<script" not in markup
    assert "<b>" not in markup
    assert "<i>" not in markup
    assert re.search(r"&lt;script&gt;x+…</text>", markup)
