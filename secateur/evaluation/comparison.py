"""The comparison of many arms on one data set: accuracy against cost, as numbers, as a page and as a table."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.dataset import open_table
from secateur.errors import InputError
from secateur.evaluation.arm_figures import DOTS, arm_dots, arm_legend, arm_style
from secateur.evaluation.charts import Figure, dot_rows, line_chart
from secateur.evaluation.page import count, percent, points, render
from secateur.evaluation.report import cell
from secateur.evaluation.results import Arm, without_nan
from secateur.evaluation.runs import check_mask, make_arm, measure, read_info, read_truth, score_noise
from secateur.evaluation.svg import Axis, Series, around
from secateur.files import replacing, write_json
from secateur.pruning.mask import read_mask

log = logging.getLogger(__name__)

TEMPLATE = "comparison.html.j2"
REFERENCES = ("full", "random")  # what chance, and everything, reach at the same cost


@dataclass(frozen=True)
class Compared:
    """One arm of a comparison."""

    arm: Arm
    mask_digest: str
    recall: float | None  # fraction of the wrong labels that the mask dropped; None where the true ones are not known

    @property
    def label(self) -> str:
        """Method and ratio."""
        return f"{self.arm.name}, keep {self.arm.keep:g}"


@dataclass(frozen=True)
class Comparison:
    """All arms, in the order in which they were given."""

    dataset: dict[str, Any]  # name, digest, classes
    arms: tuple[Compared, ...]

    @property
    def methods(self) -> list[str]:
        """The methods: those that are judged first, then the references."""
        found = list(dict.fromkeys(entry.arm.name for entry in self.arms))
        return [m for m in found if m not in REFERENCES] + [m for m in REFERENCES if m in found]

    def beside(self, entry: Compared, reference: str) -> Arm | None:
        """The arm of another method at the same ratio and the same cost; None where there is none."""
        found = (other.arm for other in self.arms if other.arm.name == reference != entry.arm.name)
        return next((a for a in found if a.keep == entry.arm.keep and a.same_budget(entry.arm)), None)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        arms = [
            asdict(entry.arm)
            | {"accuracy_mean": entry.arm.accuracy_mean, "accuracy_sd": entry.arm.accuracy_sd}
            | {"mask_digest": entry.mask_digest, "recall": entry.recall}
            for entry in self.arms
        ]
        cleaned: dict[str, Any] = without_nan({"dataset": self.dataset, "arms": arms})
        return cleaned


def compare(
    dataset_folder: str | Path,
    clean_labels_file: str | Path,
    model_folders: Sequence[str | Path],
    mask_folders: Sequence[str | Path],
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
) -> Comparison:
    """Score many runs on the test split, and their masks against the true labels where known.

    Args:
        dataset_folder: The table.
        clean_labels_file: Labels known to be true, Parquet (sample_id, label), possibly of no sample.
        model_folders: The runs.
        mask_folders: Their masks, in the same order.
        results_file: Where the numbers are written, JSON.
        report_file: Where the page is written, HTML.
        summary_file: Where the table is written, Markdown.

    Raises:
        InputError: A run, a mask or clean labels of another data set, or a data set without a test split.
    """
    table = open_table(dataset_folder)
    train, test = table.part("train"), table.part("test")
    if not len(test):
        raise InputError(f"data set must have a test split to be evaluated on, got none in {table.info.name!r}")
    truth = read_truth(clean_labels_file, table)
    known_T = truth[table.split == "test"]
    test_label_T, train_truth_N = np.where(known_T >= 0, known_T, test.label), truth[table.split == "train"]
    arms = []
    for model_folder, mask_folder in zip(model_folders, mask_folders, strict=True):
        info, mask = read_info(model_folder, "model", table), read_mask(mask_folder)
        check_mask(mask, train, info)
        noise = score_noise(mask, train.label, train_truth_N)
        arm = make_arm(measure(model_folder, info, test, test_label_T), "compared")
        arms.append(Compared(arm, mask.digest, noise.recall_all if noise and noise.wrong else None))
    dataset = {"name": table.info.name, "digest": table.info.digest, "classes": list(table.info.classes)}
    comparison = Comparison(dataset, tuple(arms))
    write_json(results_file, comparison.to_json())
    for path, text in ((report_file, render_comparison(comparison)), (summary_file, render_table(comparison))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return comparison


def ordered(comparison: Comparison) -> list[Compared]:
    """All arms, the most expensive first, and the most accurate first at each ratio."""
    return sorted(comparison.arms, key=lambda entry: (-entry.arm.keep, -entry.arm.accuracy_mean))


def cost_figure(comparison: Comparison) -> Figure:
    """Mean accuracy against the samples trained on: a line for each method through its ratios."""
    series = []
    for i, method in enumerate(comparison.methods):
        arms = sorted((e.arm for e in comparison.arms if e.arm.name == method), key=lambda arm: arm.backward_samples)
        colour, shape = arm_style(i)
        x, y = [a.backward_samples for a in arms], [a.accuracy_mean for a in arms]
        series.append(Series(method, colour, x, y, shape))
    values = [value for line in series for value in line.y]
    costs = [value for line in series for value in line.x]
    chart = line_chart(
        "Test accuracy against cost, by method; the table has the numbers",
        series,
        Axis(*around(costs, 0), "samples trained on, warm-up included"),
        Axis(*around(values, 0, 1), "test accuracy", percent=True),
    )
    references = " and ".join(method for method in comparison.methods if method in REFERENCES)
    caption = "Mean over the seeds; the points of a line are its ratios. At one ratio, all methods have the same steps."
    if references:
        caption += f" To beat: {references}, which choose nothing or by chance."
    return Figure("Accuracy against cost", chart, caption, arm_legend(comparison.methods))


def accuracy_figure(comparison: Comparison) -> Figure:
    """Test accuracy of every arm, all seeds."""
    position = {method: i for i, method in enumerate(comparison.methods)}
    rows = [(e.label, [arm_dots(position[e.arm.name], e.label, e.arm.accuracy)]) for e in ordered(comparison)]
    axis = Axis(*around([a for e in comparison.arms for a in e.arm.accuracy], 0, 1), "test accuracy", percent=True)
    return Figure("Every arm and seed", dot_rows("Test accuracy of every arm", rows, axis), DOTS)


def difference(entry: Compared, other: Arm | None) -> str:
    """Accuracy beside a reference at the same ratio, in points."""
    return points(entry.arm.accuracy_mean - other.accuracy_mean) if other else "\N{EN DASH}"


def headline(comparison: Comparison) -> str:
    """For each ratio, the arm with the highest accuracy among those that were judged."""
    parts = []
    for keep in sorted({e.arm.keep for e in comparison.arms}):
        judged = [e for e in comparison.arms if e.arm.keep == keep and e.arm.name not in REFERENCES]
        if not judged:
            continue
        first = max(judged, key=lambda entry: entry.arm.accuracy_mean)
        parts.append(f"{first.arm.name} has {percent(first.arm.accuracy_mean)} at keep {keep:g}")
    return f"Highest at each ratio: {'; '.join(parts)}." if parts else ""


def render_comparison(comparison: Comparison) -> str:
    """Write the page; the same inputs give the same text."""
    styles = dict(zip(comparison.methods, arm_legend(comparison.methods), strict=True))
    rows = [
        (styles[e.arm.name][0], e, *(difference(e, comparison.beside(e, name)) for name in REFERENCES))
        for e in ordered(comparison)
    ]
    return render(
        TEMPLATE,
        comparison=comparison,
        rows=rows,
        headline=headline(comparison),
        cost=cost_figure(comparison),
        accuracy=accuracy_figure(comparison),
        seeds=sorted({len(e.arm.seeds) for e in comparison.arms}),
    )


def render_table(comparison: Comparison) -> str:
    """The arms as a table in Markdown."""
    lines = [
        f"### {cell(comparison.dataset['name'])}, data {comparison.dataset['digest'][:12]}",
        "",
        "| method | keep | test accuracy | beside full | beside random | samples trained on | wrong labels dropped |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for e in ordered(comparison):
        spread = "" if e.arm.accuracy_sd is None else f" ± {100 * e.arm.accuracy_sd:.1f}"
        beside = " | ".join(difference(e, comparison.beside(e, name)) for name in REFERENCES)
        lines.append(
            f"| {cell(e.arm.name)} | {e.arm.keep:g} | {100 * e.arm.accuracy_mean:.1f}{spread} % | {beside} | "
            f"{count(e.arm.backward_samples)} | {percent(e.recall)} |"
        )
    return "\n".join(lines) + "\n"
