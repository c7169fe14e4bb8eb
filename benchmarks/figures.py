"""Charts of a record, as SVG files that stand alone."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secateur.evaluation.charts import dot_rows, line_chart
from secateur.evaluation.svg import SHAPES, Axis, Series, around

Run = dict[str, Any]

COLOURS = ("#1565c0", "#8a8a8a", "#e07b00", "#2e8b57", "#c2185b", "#b71c1c")
STYLE = (
    "svg{background:#fff;font:12px sans-serif}.grid{stroke:#ddd}.tick,.axis,.row{fill:#333}"
    ".fill{fill:var(--c)}.stroke{stroke:var(--c);stroke-width:2;fill:none}.thin{stroke-width:1.5;opacity:.45}"
    ".fill.faint{opacity:.35}.stroke.faint{stroke-width:1;opacity:.35}"
    + "".join(f".arm-{i}{{--c:{colour}}}" for i, colour in enumerate(COLOURS))
)


def save(path: Path, markup: str) -> None:
    """Write a drawing with colours and a name space of its own."""
    head, rest = str(markup).split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    path.write_text(f"{head}><style>{STYLE}</style>{rest}\n")


def write_figures(
    folder: Path,
    runs: Sequence[Run],
    labels: str,
    curve: Sequence[tuple[float, float]],
    name: Callable[[Run], str],
) -> list[str]:
    """Draw a label set: accuracy by arm for each ratio, and the full-data curve with the arms on it."""
    lines = []
    mine = [r for r in runs if r["labels"] == labels]
    keeps = sorted({r["keep"] for r in mine if r["arm"] != "full"}, reverse=True)
    for keep in keeps:
        groups: dict[str, list[float]] = defaultdict(list)
        for run in mine:
            if run["keep"] == keep:
                groups[name(run)].append(run["test_accuracy"] / 100)
        for run in mine:
            if run["keep"] == 1 and run["arm"] == "full":
                groups["full, to the end"].append(run["test_accuracy"] / 100)
        rows = sorted(groups.items(), key=lambda g: -np.mean(g[1]))
        axis = Axis(*around([v for values in groups.values() for v in values], 0, 1), "test accuracy", percent=True)
        dots = [(arm, [Series(arm, f"arm-{1 if arm.startswith('full') else 0}", v, ())]) for arm, v in rows]
        file = f"accuracy-{labels}-{keep:g}.svg"
        save(folder / file, dot_rows(f"Test accuracy by arm, {labels}, keep {keep:g}", dots, axis))
        lines += [f"![Test accuracy by arm, {labels}, keep {keep:g}]({file})", ""]
    if len(curve) > 1:
        file = f"budget-{labels}.svg"
        save(folder / file, budget_chart(mine, labels, curve, name))
        lines += [f"![Test accuracy over budget, {labels}]({file})", ""]
    return lines


def budget_chart(
    runs: Sequence[Run], labels: str, curve: Sequence[tuple[float, float]], name: Callable[[Run], str]
) -> str:
    """Full data as a line over the budget; each other arm as a line through its ratios."""
    points: dict[str, dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["arm"] != "full":
            share = 100 * run["backward_samples"] / run["full_samples"]
            points[name(run)][run["keep"]].append((share, run["test_accuracy"] / 100))
    best = sorted(points, key=lambda arm: -np.mean([v for found in points[arm].values() for _, v in found]))[:5]
    series = [Series("full data", "arm-1", [100 * x for x, _ in curve], [y / 100 for _, y in curve])]
    for i, arm in enumerate(best):
        means = sorted(tuple(np.mean(found, axis=0)) for found in points[arm].values())
        x, y = ([float(p[axis]) for p in means] for axis in (0, 1))
        series.append(Series(arm, f"arm-{(0, 2, 3, 4, 5)[i]}", x, y, SHAPES[i % len(SHAPES)]))
    return line_chart(
        f"Test accuracy over budget, {labels}: {', '.join(s.name for s in series)}",
        series,
        Axis(0, 100, "budget, % of full data's samples"),
        Axis(*around([v for s in series for v in s.y], 0, 1), "test accuracy", percent=True),
    )
