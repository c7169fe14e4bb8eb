"""The report's charts, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from secateur.evaluation.svg import CHARACTER, WIDTH, Axis, Drawing, Series, around, number, swatch

MAX_ROWS = 30  # rows of a chart
ODDS_MARKS = (1e-4, 0.01, 0.5, 0.99, 0.9999)
ODDS_CAPTION = "Even steps are even factors of the odds; the outermost bars hold all beyond."


@dataclass(frozen=True)
class Figure:
    """A chart with its title, legend and caption."""

    title: str
    chart: Markup
    caption: str = ""
    legend: Sequence[tuple[Markup, str]] = field(default=())  # swatch and name


@dataclass(frozen=True)
class Group:
    """Some of the samples, and how they are drawn."""

    name: str
    colour: str
    member_N: npt.NDArray[np.bool_]


def group_legend(groups: Sequence[Group]) -> list[tuple[Markup, str]]:
    """Legend of groups."""
    return [(swatch(g.colour), f"{g.name} ({g.member_N.sum():,})") for g in groups]


def line_chart(summary: str, lines: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """Lines with a point at each value."""
    drawing = Drawing(summary, 250, x, y)
    # Faint lines lie behind, and the first of the others lies on top.
    for line in sorted(reversed(lines), key=lambda entry: not entry.faint):
        points = [(drawing.at_x(a), drawing.at_y(b)) for a, b in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{number(a)},{number(b)}" for a, b in points)
        drawing.add("polyline", f"stroke {line.colour}" + (" faint" if line.faint else ""), points=path)
        if not line.faint:
            for (a, b), value_x, value_y in zip(points, line.x, line.y, strict=True):
                hint = f"{line.name}: {value_y:.1%}" if y.percent else f"{line.name}: {value_y:.3g}"
                drawing.mark(line.shape, f"fill {line.colour}", a, b, 2.2, f"{hint} at {value_x:,.0f}")
    return drawing.markup()


def histogram(
    summary: str,
    groups: Sequence[tuple[str, str, npt.NDArray[np.floating]]],
    x: Axis,
    bins: int = 40,
    line: tuple[float, str] | None = None,
) -> Markup:
    """Bars of how many values fall into each bin, stacked by group.

    Args:
        summary: What is to be seen, for those who do not see it.
        groups: Name, colour and values of each, the lowest first.
        x: Axis whose range is cut into the bins; values outside count at its ends.
        bins: Their number.
        line: A value to mark, and its text.
    """
    edges = np.linspace(x.low, x.high, bins + 1)
    counts = [np.histogram(np.clip(values, x.low, x.high), edges)[0] for _, _, values in groups]
    top = around([0.0, float(np.sum(counts, axis=0).max(initial=1))])[1]
    drawing = Drawing(summary, 250, x, Axis(0, top, "samples"))
    below = np.zeros(bins, dtype=np.int64)
    for (name, colour, _), count in zip(groups, counts, strict=True):
        for i in np.flatnonzero(count):
            start, stop = drawing.at_x(edges[i]), drawing.at_x(edges[i + 1])
            high, low = drawing.at_y(below[i] + count[i]), drawing.at_y(below[i])
            size = {"x": start + 0.4, "y": high, "width": stop - start - 0.8, "height": low - high}
            drawing.add("rect", f"fill {colour}", f"{name}: {count[i]}", **size)
        below += count
    if line is not None:
        at = drawing.at_x(line[0])
        drawing.add("line", "mark", x1=at, x2=at, y1=drawing.top - 4, y2=drawing.bottom)
        drawing.text(line[1], at, drawing.top - 8, "middle")
    return drawing.markup()


def log_odds(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Log of p / (1 - p), finite also at 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def odds_histogram(
    summary: str,
    groups: Sequence[tuple[str, str, npt.NDArray[np.floating]]],
    title: str,
    line: tuple[float, str] | None = None,
) -> Markup:
    """A histogram of probabilities over their odds; the arguments are those of `histogram`, and the axis's title."""
    marks = list(zip(log_odds(np.array(ODDS_MARKS)).tolist(), (f"{100 * p:g} %" for p in ODDS_MARKS), strict=True))
    end = 1.15 * marks[-1][0]
    values = [(name, colour, log_odds(probability)) for name, colour, probability in groups]
    at = (float(log_odds(np.array(line[0]))), line[1]) if line else None
    return histogram(summary, values, Axis(-end, end, title, marks=marks), line=at)


def row_room(labels: Sequence[str]) -> float:
    """Width that row labels need, at most half of the drawing."""
    return min(WIDTH / 2, 14 + CHARACTER * max(map(len, labels)))


def dot_rows(summary: str, rows: Sequence[tuple[str, Sequence[Series]]], x: Axis) -> Markup:
    """Rows of points: of each series its values, faint, a line over their range, and their mean."""
    step = 12.0 if max(len(series) for _, series in rows) > 1 else 20.0
    heights = [8 + step * len(series) for _, series in rows]
    drawing = Drawing(summary, 48 + sum(heights), x, None, row_room([label for label, _ in rows]))
    top = drawing.top
    for (label, series), height in zip(rows, heights, strict=True):
        drawing.row_label(label, top + height / 2)
        for i, entry in enumerate(series):
            y = top + 4 + step * (i + 0.5)
            if not entry.x:
                continue
            ends = drawing.at_x(min(entry.x)), drawing.at_x(max(entry.x))
            drawing.add("line", f"stroke thin {entry.colour}", x1=ends[0], x2=ends[1], y1=y, y2=y)
            for value in entry.x:
                drawing.mark(entry.shape, f"fill faint {entry.colour}", drawing.at_x(value), y, 3)
            mean = math.fsum(entry.x) / len(entry.x)
            drawing.mark(entry.shape, f"fill {entry.colour}", drawing.at_x(mean), y, 4.5, f"{entry.name}: {mean:.1%}")
        top += height
        drawing.add("line", "grid", x1=drawing.left, x2=drawing.right, y1=top, y2=top)
    return drawing.markup()


def bar_rows(summary: str, rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], x: Axis) -> Markup:
    """Rows of bars, each made of parts: name, colour and length."""
    drawing = Drawing(summary, 48 + 22.0 * len(rows), x, None, row_room([label for label, _ in rows]))
    for i, (label, parts) in enumerate(rows):
        y = drawing.top + 22.0 * i + 3
        drawing.row_label(label, y + 8)
        start = x.low
        for name, colour, length in parts:
            left, right = drawing.at_x(start), drawing.at_x(start + length)
            if length > 0:
                size = {"x": left, "y": y, "width": max(right - left - 0.6, 0.6), "height": 16.0}
                drawing.add("rect", f"fill {colour}", f"{name}: {length:.1%}", **size)
            start += length
    return drawing.markup()


def chosen_rows(order_C: npt.NDArray[np.floating]) -> tuple[list[int], bool]:
    """All classes in their order, or, if they are too many, those that come first by a value; and whether it is so."""
    if len(order_C) <= MAX_ROWS:
        return list(range(len(order_C))), False
    return np.argsort(order_C, kind="stable")[:MAX_ROWS].tolist(), True
