"""What `secateur versions diff` shows: the figures, and a page with the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from secateur.files import replacing
from secateur.pipelines.versions import show_table
from secateur.records.registry.checkout import Opened
from secateur.records.registry.comparing import WAYS, Difference, changes, difference
from secateur.records.registry.withdrawal import among

TEMPLATE = "version_diff.html.j2"
SHOWN = 48  # pictures of each group
TITLES = {"both": "dropped by both", "first": "only by A", "second": "only by B"}


@dataclass(frozen=True)
class Comparison:
    """Two versions beside each other."""

    names: tuple[str, str]
    masks: Difference
    changes: Mapping[str, tuple[float, float]]

    @property
    def figures(self) -> list[tuple[str, ...]]:
        """Accuracy and cost as people read them: name, first, second, change."""
        return [(name, figure(name, a), figure(name, b), change(name, a, b)) for name, (a, b) in self.changes.items()]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        masks = self.masks
        return {
            "versions": list(self.names),
            "samples": masks.samples,
            "only_in": list(masks.apart),
            "agreement": masks.agreement,
            "dropped": {way: list(ids) for way, ids in masks.dropped.items()},
            "per_class": {name: dict(counts) for name, counts in masks.per_class.items()},
            "reasons": [{"from": a, "to": b, "samples": n} for (a, b), n in masks.reasons.items()],
            "changes": {name: list(values) for name, values in self.changes.items()},
        }


def compare(first: Opened, second: Opened) -> Comparison:
    """Compare two versions.

    Raises:
        InputError: Their data cannot be had.
    """
    class_of = {
        sample_id: version.facts["dataset"]["classes"][label]
        for version in (second, first)
        for sample_id, label in version.labels().items()
    }
    masks = difference(first.published_mask(), second.published_mask(), class_of)
    return Comparison((first.facts["version"], second.facts["version"]), masks, changes(first.facts, second.facts))


def show(compared: Comparison) -> None:
    """Print a comparison."""
    masks = compared.masks
    for letter, name in zip("AB", compared.names, strict=True):
        print(f"{letter}: {name}")
    dropped = ", ".join(f"{len(masks.dropped[way]):,} {title}" for way, title in TITLES.items())
    print(f"{masks.samples:,} pictures are in both: {dropped}; the masks agree on {100 * masks.agreement:.1f} %.")
    if any(masks.apart):
        print(f"{masks.apart[0]:,} pictures are only in A, {masks.apart[1]:,} only in B.")
    tables: list[tuple[Sequence[str], list[tuple[str, ...]]]] = [
        (("", "A", "B", "change"), compared.figures),
        (("class", *TITLES.values()), [(n, *(str(here[way]) for way in WAYS)) for n, here in masks.per_class.items()]),
        (("reason", "pictures"), [(f"{a} -> {b}", str(count)) for (a, b), count in masks.reasons.items()]),
    ]
    for titles, rows in tables:
        print()
        show_table(titles, rows)


def figure(name: str, value: float) -> str:
    """A figure as people read it."""
    if "seconds" in name:
        return f"{value:,.1f}"
    return f"{value:,.0f}" if "samples" in name else f"{100 * value:.1f} %"


def change(name: str, first: float, second: float) -> str:
    """What a figure changed by: a count in percent of itself, a fraction in points."""
    if "samples" in name or "seconds" in name:
        return f"{100 * (second / first - 1):+.1f} %" if first else "-"
    return f"{100 * (second - first):+.1f} points"


def write_gallery(path: Path, compared: Comparison, first: Opened, second: Opened, table_folder: str | None) -> None:
    """Write a page with the pictures that only one of two versions drops.

    Raises:
        InputError: The data set cannot be had.
    """
    from secateur.evaluation.gallery import make_picture

    groups = []
    for way, dropper, keeper in (("first", first, second), ("second", second, first)):
        train, mask = dropper.table(table_folder).part("train"), dropper.published_mask()
        dropped = np.isin(mask.sample_id.astype(str), list(compared.masks.dropped[way]))
        dropped &= ~np.array(among(mask.sample_id.tolist(), dropper.withdrawn))
        rows = np.flatnonzero(dropped)
        rows = rows[np.argsort(mask.score[rows], kind="stable")]
        tiles = [(make_picture(int(i), train, mask, -1), mask.reason[i]) for i in rows[:SHOWN]]
        groups.append(
            {"dropper": dropper.facts["version"], "keeper": keeper.facts["version"], "count": len(rows), "tiles": tiles}
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("secateur.pipelines", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        names=compared.names,
        masks=compared.masks,
        titles=TITLES,
        ways=WAYS,
        groups=groups,
        figures=compared.figures,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
