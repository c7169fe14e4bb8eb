"""A drawing as inline SVG, which takes fonts and colours from the page, so that one drawing serves light and dark.

A colour is the name of a CSS class of the page, which sets `--c`. The XML writer escapes texts and attributes,
and the same numbers give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

WIDTH = 460  # of a drawing, in its own units; the page scales it
CHARACTER = 6.8  # mean width of a character of the labels
SHAPES = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Series:
    """Points of one colour; a shape is drawn at each, and a line through them where they are a line chart's."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    shape: str = "circle"
    faint: bool = False  # one of several runs behind their mean


@dataclass(frozen=True)
class Axis:
    """A scale from values to positions."""

    low: float
    high: float
    title: str
    percent: bool = False
    marks: Sequence[tuple[float, str]] | None = None  # position and text of each tick; None for round numbers

    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of each tick."""
        if self.marks is not None:
            return list(self.marks)
        step = tick_step(self.low, self.high)
        places = max(0, -math.floor(math.log10(step * (100 if self.percent else 1)) + 1e-9))
        first = math.ceil(self.low / step - 1e-6)
        values = [(first + i) * step for i in range(int(self.high / step + 1e-6) - first + 1)]
        texts = [f"{v:.{places}%}".replace("%", " %") if self.percent else f"{v:,.{places}f}" for v in values]
        return [(v, text.replace("-", "\N{MINUS SIGN}")) for v, text in zip(values, texts, strict=True)]


def tick_step(low: float, high: float) -> float:
    """Step between ticks: 1, 2 or 5 times a power of ten, for about five of them.

    >>> tick_step(0, 1)
    0.2
    """
    raw = (high - low) / 5
    power: float = 10.0 ** math.floor(math.log10(raw))
    return power * next(m for m in (1, 2, 5, 10) if raw <= m * power * 1.0001)


def around(values: Sequence[float], low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """Ends of an axis that holds all values with a little air, at round numbers, within limits."""
    smallest, largest = min(values), max(values)
    if largest - smallest < 0.02 * max(abs(largest), 1e-6):
        air = max(0.02 * abs(largest), 1e-3)
        smallest, largest = smallest - air, largest + air
    step = tick_step(smallest, largest)
    return max(low, math.floor(smallest / step) * step), min(high, math.ceil(largest / step) * step)


class Drawing:
    """An SVG with a plotting area and two axes."""

    def __init__(self, summary: str, height: float, x: Axis, y: Axis | None, left: float = 44) -> None:
        """Draw the frame.

        Args:
            summary: What is to be seen, for those who do not see it.
            height: In units of `WIDTH`.
            x: The axis below.
            y: The axis on the left, or None where rows carry labels instead.
            left: Room on the left of the plotting area.
        """
        self.x, self.y = x, y
        self.left, self.right, self.top, self.bottom = left, WIDTH - 18.0, 12.0 if y is None else 22.0, height - 36
        box = f"0 0 {WIDTH} {number(height)}"
        self.root = ElementTree.Element("svg", {"viewBox": box, "role": "img", "aria-label": summary})
        for value, text in x.ticks():
            at = self.at_x(value)
            if y is None:
                self.add("line", "grid", x1=at, x2=at, y1=self.top, y2=self.bottom)
            self.text(text, at, self.bottom + 15, "middle")
        self.text(x.title, self.right, self.bottom + 31, "end", "axis")
        if y is not None:
            for value, text in y.ticks():
                at = self.at_y(value)
                self.add("line", "grid", x1=self.left, x2=self.right, y1=at, y2=at)
                self.text(text, self.left - 6, at + 4, "end")
            self.text(y.title, 0, 11, "start", "axis")

    def at_x(self, value: float) -> float:
        """Position of a value of the axis below."""
        return self.left + (value - self.x.low) / (self.x.high - self.x.low) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """Position of a value of the axis on the left."""
        assert self.y is not None
        return self.bottom - (value - self.y.low) / (self.y.high - self.y.low) * (self.bottom - self.top)

    def add(self, tag: str, css: str, hint: str = "", **attributes: float | str) -> None:
        """Add a shape; the hint shows when the pointer rests on it."""
        values = {k.replace("_", "-"): v if isinstance(v, str) else number(v) for k, v in attributes.items()}
        shape = ElementTree.SubElement(self.root, tag, {"class": css, **values})
        if hint:
            ElementTree.SubElement(shape, "title").text = hint

    def text(self, words: str, x: float, y: float, anchor: str, css: str = "tick") -> None:
        """Add a text."""
        attributes = {"class": css, "x": number(x), "y": number(y), "text-anchor": anchor}
        ElementTree.SubElement(self.root, "text", attributes).text = words

    def mark(self, shape: str, css: str, x: float, y: float, size: float, hint: str = "") -> None:
        """Add a point of one of `SHAPES`."""
        self.add("path", css, hint, d=outline(shape, x, y, size))

    def row_label(self, words: str, y: float) -> None:
        """Add the label of a row, cut where there is no room."""
        room = int((self.left - 8) / CHARACTER)
        self.text(words if len(words) <= room else words[: room - 1] + "…", self.left - 8, y + 4, "end", "row")

    def markup(self) -> Markup:
        """The SVG, safe to put into a page."""
        return Markup(ElementTree.tostring(self.root, encoding="unicode"))


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def outline(shape: str, x: float, y: float, size: float) -> str:
    """Path of a point, with about the same area for all shapes."""
    if shape == "circle":
        r = number(size)
        return (
            f"M{number(x - size)} {number(y)}a{r} {r} 0 1 0 {number(2 * size)} 0a{r} {r} 0 1 0 {number(-2 * size)} 0z"
        )
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "triangle": [(0, -1.25), (1.15, 0.9), (-1.15, 0.9)],
    }[shape]
    return "M" + "L".join(f"{number(x + size * dx)} {number(y + size * dy)}" for dx, dy in corners) + "z"


def swatch(colour: str, shape: str = "square") -> Markup:
    """A point for a legend."""
    root = ElementTree.Element("svg", {"viewBox": "0 0 12 12", "class": "swatch", "aria-hidden": "true"})
    ElementTree.SubElement(root, "path", {"class": f"fill {colour}", "d": outline(shape, 6, 6, 4.5)})
    return Markup(ElementTree.tostring(root, encoding="unicode"))
