"""Figures about the arms: how their training went, and how good their models are."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from secateur.evaluation.charts import MAX_ROWS, Figure, chosen_rows, dot_rows, line_chart
from secateur.evaluation.results import ArmRun, Results
from secateur.evaluation.scores import per_class_accuracy
from secateur.evaluation.svg import SHAPES, Axis, Series, around, swatch

DOTS = "Solid: mean over the seeds. Pale: each seed. The axis need not start at zero."


def arm_labels(results: Results) -> list[str]:
    """Names of the arms, told apart where two have the same."""
    names = [arm.name for arm in results.arms]
    return [f"{a.name} ({a.role}, keep {a.keep:g})" if names.count(a.name) > 1 else a.name for a in results.arms]


def arm_style(position: int) -> tuple[str, str]:
    """Colour and shape of an arm."""
    return f"arm-{position % 6}", SHAPES[position % len(SHAPES)]


def arm_dots(position: int, label: str, values: Sequence[float]) -> Series:
    """An arm's values in a row of dots."""
    colour, shape = arm_style(position)
    return Series(label, colour, values, (), shape)


def arm_legend(labels: Sequence[str]) -> list[tuple[Markup, str]]:
    """Legend of the arms."""
    return [(swatch(*arm_style(i)), label) for i, label in enumerate(labels)]


def accuracy_figure(results: Results) -> Figure:
    """Test accuracy of each arm, all seeds."""
    labels = arm_labels(results)
    rows = [(label, [arm_dots(i, label, results.arms[i].accuracy)]) for i, label in enumerate(labels)]
    axis = Axis(*around([a for arm in results.arms for a in arm.accuracy], 0, 1), "test accuracy", percent=True)
    means = ", ".join(f"{label} {arm.accuracy_mean:.1%}" for label, arm in zip(labels, results.arms, strict=True))
    return Figure(
        "Test accuracy",
        dot_rows(f"Test accuracy by arm: {means}", rows, axis),
        DOTS,
    )


def curves(results: Results, runs: Sequence[ArmRun], key: str, by_samples: bool) -> list[Series]:
    """One line per arm, the mean over its seeds, with the seeds behind it; epochs without a value are left out."""
    series = []
    for i, (label, run) in enumerate(zip(arm_labels(results), runs, strict=True)):
        colour, shape = arm_style(i)
        x = [[e["samples"] if by_samples else e["epoch"] + 1 for e in h if e[key] is not None] for h in run.histories]
        y = [[e[key] for e in h if e[key] is not None] for h in run.histories]
        common = min(map(len, y))
        if not common:
            continue
        if len(y) > 1:
            series += [Series(label, colour, a, b, shape, faint=True) for a, b in zip(x, y, strict=True)]
        mean_x, mean_y = (np.mean([v[:common] for v in values], axis=0).tolist() for values in (x, y))
        series.append(Series(label, colour, mean_x, mean_y, shape))
    return series


def training_figures(results: Results, runs: Sequence[ArmRun]) -> list[Figure]:
    """Kept fraction over epochs; accuracy and loss on the validation split over the samples trained on."""
    legend = arm_legend(arm_labels(results))
    kept = curves(results, runs, "kept", by_samples=False)
    phases = "; ".join(f"{name} from epoch {epoch}" for name, epoch in phase_starts(runs[0]))
    epochs = Axis(1, max(2, *(max(s.x) for s in kept)), "epoch")
    figures = [
        Figure(
            "Kept fraction",
            line_chart(f"Fraction of the training samples in each epoch's set; {phases}", kept, epochs,
                       Axis(0, 1, "of the training samples", percent=True)),
            f"Samples in each epoch's set. {results.arms[0].name}: {phases}.",
            legend,
        )
    ]  # fmt: skip
    names = {"validation_accuracy": "Validation accuracy", "validation_loss": "Validation loss"}
    for key, title in names.items():
        lines = curves(results, runs, key, by_samples=True)
        if not lines:
            continue
        percent = key == "validation_accuracy"
        y = Axis(*around([v for s in lines for v in s.y], 0, 1 if percent else np.inf), title.lower(), percent)
        x = Axis(0, max(max(s.x) for s in lines), "samples trained on")
        ends = ", ".join(f"{s.name} {s.y[-1]:.3g}" for s in lines if not s.faint)
        caption = "Per epoch, on the labels as given; pale: single seeds. Where some of these labels are wrong, "
        caption += "a model that resists them looks worse here than it is."
        figures.append(
            Figure(title, line_chart(f"{title} by samples; at the end {ends}", lines, x, y), caption, legend)
        )
    return figures


def phase_starts(run: ArmRun) -> list[tuple[str, int]]:
    """Where each phase of the first seed begins, in epochs from 1."""
    history = run.histories[0]
    return [
        (e["phase"], e["epoch"] + 1)
        for before, e in zip([None, *history], history, strict=False)
        if before is None or before["phase"] != e["phase"]
    ]


def class_figure(results: Results, runs: Sequence[ArmRun]) -> Figure:
    """Test accuracy of each class, all arms and seeds."""
    classes, labels = results.dataset["classes"], arm_labels(results)
    accuracy_ASC = [[per_class_accuracy(c) for c in run.confusions] for run in runs]
    rows, cut = chosen_rows(np.mean(accuracy_ASC[0], axis=0))
    dots = []
    for c in rows:
        values = [
            [float(accuracy_C[c]) for accuracy_C in seeds if not np.isnan(accuracy_C[c])] for seeds in accuracy_ASC
        ]
        dots.append((classes[c], [arm_dots(i, labels[i], v) for i, v in enumerate(values)]))
    x = Axis(*around([v for _, series in dots for s in series for v in s.x], 0, 1), "test accuracy", percent=True)
    return Figure(
        "Accuracy per class",
        dot_rows("Test accuracy per class and arm", dots, x),
        DOTS + (f" The {MAX_ROWS} classes of {len(classes)} with the lowest accuracy." if cut else ""),
        arm_legend(labels),
    )
