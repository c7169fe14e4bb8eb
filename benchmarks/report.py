"""The report of a record: tables in Markdown and charts in SVG, from the files of its runs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.figures import write_figures
from secateur.files import read_json, write_json

Run = dict[str, Any]

# Points by which an arm on clean labels may be worse than full data to the end and still count as not worse.
MARGINS = {0.5: 0.2, 0.3: 0.5}


@dataclass(frozen=True)
class Comparison:
    """Paired by seed: an arm less a reference, in points."""

    pairs: int
    mean: float
    p: float  # one-sided, of the arm being no better than the reference less the margin; NaN where there is no spread


def read_runs(folder: Path) -> list[Run]:
    """All finished runs of a record."""
    return [read_json(file) for file in sorted((folder / "runs").glob("*.json"))]


def arm_name(run: Run) -> str:
    """The arm, with its semantics where it looks at any."""
    return f"{run['arm']} ({run['semantics']})" if run["semantics_figures"] else str(run["arm"])


def by_seed(runs: Iterable[Run], labels: str, arm: str, keep: float) -> dict[int, Run]:
    """The runs of an arm, by seed."""
    return {r["seed"]: r for r in runs if (r["labels"], r["keep"], arm_name(r)) == (labels, keep, arm)}


def compare(arm: dict[int, Run], reference: dict[int, Run], margin: float = 0.0) -> Comparison:
    """One-sided paired t-test of arm > reference - margin."""
    seeds = sorted(set(arm) & set(reference))
    difference = np.array([arm[s]["test_accuracy"] - reference[s]["test_accuracy"] for s in seeds])
    if len(seeds) < 2 or np.ptp(difference) < 1e-9:  # without spread there is nothing to test
        return Comparison(len(seeds), float(difference.mean()) if seeds else math.nan, math.nan)
    p = stats.ttest_1samp(difference, -margin, alternative="greater").pvalue
    return Comparison(len(seeds), float(difference.mean()), float(p))


def equals_full_at(accuracy: float, curve: Sequence[tuple[float, float]]) -> str:
    """The budget, in percent of full data's, at which full data reach an accuracy, by linear interpolation.

    Args:
        accuracy: In percent.
        curve: Budget as a fraction, and accuracy, of full data; with budgets rising.
    """
    if len(curve) < 2:
        return ""
    share, reached = (np.array(v) for v in zip(*curve, strict=True))
    reached = np.maximum.accumulate(reached)
    if accuracy < reached[0]:
        return f"< {100 * share[0]:.0f}"
    if accuracy > reached[-1]:
        return f"> {100 * share[-1]:.0f}"
    # The first place where the curve is as high: where it is flat, the smaller budget counts.
    right = int(np.searchsorted(reached, accuracy))
    if right == 0:
        return f"{100 * share[0]:.0f}"
    part = (accuracy - reached[right - 1]) / (reached[right] - reached[right - 1])
    return f"{100 * (share[right - 1] + part * (share[right] - share[right - 1])):.0f}"


def full_curve(runs: Sequence[Run], labels: str) -> list[tuple[float, float]]:
    """Budget, as a fraction of full data's, and mean accuracy of full data."""
    points: dict[float, list[float]] = defaultdict(list)
    share = {}
    for run in runs:
        if run["labels"] == labels and run["arm"] == "full":
            points[run["keep"]].append(run["test_accuracy"])
            share[run["keep"]] = run["backward_samples"] / run["full_samples"]
    return [(share[keep], float(np.mean(points[keep]))) for keep in sorted(points)]


def number(comparison: Comparison) -> str:
    """A difference and its p value, as a table has them."""
    if not comparison.pairs:
        return ""
    sign = f"{comparison.mean:+.2f}".replace("-", "\N{MINUS SIGN}")
    return sign if math.isnan(comparison.p) else f"{sign} ({comparison.p:.3f})"


def shown(value: float | None, places: int) -> str:
    """A figure, where there is one."""
    return "" if value is None else f"{value:.{places}f}"


def mean_sd(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def cost(runs: Iterable[Run], key: str) -> float:
    """Mean of a cost, preliminary runs included."""
    return float(np.mean([r[key] + r["preliminary"].get(key, 0) for r in runs]))


TO_THE_END = "full data to the end"


def main_table(runs: Sequence[Run], labels: str, keep: float) -> list[str]:
    """Arms at one ratio, best first."""
    arms = sorted({arm_name(r) for r in runs if (r["labels"], r["keep"]) == (labels, keep)})
    groups = {arm: by_seed(runs, labels, arm, keep) for arm in arms}
    groups[TO_THE_END] = by_seed(runs, labels, "full", 1.0)
    groups = {arm: group for arm, group in groups.items() if group}
    margin = MARGINS.get(keep, 0.0) if labels == "clean" else 0.0
    references = {TO_THE_END: margin, "full": 0.0, "random": 0.0}
    curve = full_curve(runs, labels)
    titles, rows = [], []
    for arm, group in sorted(groups.items(), key=lambda g: -np.mean([r["test_accuracy"] for r in g[1].values()])):
        cells = {"arm": arm} | measured(list(group.values()), curve)
        for reference, allowed in references.items():
            same = arm == reference or reference not in groups
            found = "" if same else number(compare(group, groups[reference], allowed))
            cells[f"\N{GREEK CAPITAL LETTER DELTA} {reference} (p{f', margin {allowed:g}' if allowed else ''})"] = found
        titles = list(cells)
        rows.append("| " + " | ".join(cells.values()) + " |")
    return ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1), *rows]


def measured(runs: list[Run], curve: Sequence[tuple[float, float]]) -> dict[str, str]:
    """An arm's figures at one ratio."""

    def mean(key: str) -> float:
        return float(np.mean([r[key] for r in runs]))

    seconds = cost(runs, "seconds")
    return {
        "seeds": str(len(runs)),
        "test accuracy, %": mean_sd([r["test_accuracy"] for r in runs]),
        "equals full data at, % of its samples": equals_full_at(mean("test_accuracy"), curve),
        "mask keeps, %": f"{100 * mean('keep_achieved'):.1f}",
        "wrong labels in the last set, %": f"{100 * np.mean([r['wrong_curve'][-1] for r in runs]):.1f}",
        "samples backward, thousands": f"{cost(runs, 'backward_samples') / 1e3:,.0f}",
        "forward, thousands": f"{cost(runs, 'forward_samples') / 1e3:,.0f}",
        "TFLOP": f"{mean('teraflops'):.2f}",
        "seconds": f"{seconds:.0f}",
        "choosing, % of them": f"{100 * mean('choosing_seconds') / seconds:.2f}",
    }


def reference_table(runs: Sequence[Run], labels: str, keep: float, reference: str) -> list[str]:
    """All arms against one."""
    base = by_seed(runs, labels, reference, keep)
    arms = sorted({arm_name(r) for r in runs if (r["labels"], r["keep"]) == (labels, keep)} - {reference})
    rows = [(arm, compare(by_seed(runs, labels, arm, keep), base)) for arm in arms]
    rows = sorted((row for row in rows if row[1].pairs), key=lambda row: -row[1].mean)
    if not rows:
        return []
    lines = [f"| {arm} | {number(found)} | {found.pairs} |" for arm, found in rows]
    return ["", f"Against {reference}:", "", "| arm | difference, points (p) | pairs |", "|---|---:|---:|", *lines]


def semantics_lines(runs: Sequence[Run], labels: str) -> list[str]:
    """What the semantics are worth on a label set."""
    seen = {r["semantics"]: r["semantics_figures"] for r in runs if r["labels"] == labels and r["semantics_figures"]}
    if not seen:
        return []
    rows = [
        f"| {name} | {100 * f['agreement_with_given_labels']:.1f} | {100 * f['expected_wrong']:.1f} "
        f"| {shown(f.get('auroc_of_q'), 3)} | {shown(f.get('auroc_of_pi'), 3)} | {f['fit_seconds']:.1f} "
        f"| {shown(f.get('probe_test_accuracy'), 2)} |"
        for name, f in sorted(seen.items())
    ]
    head = (
        "| semantics | agrees with given labels, % | expects wrong, % "
        "| AUROC of q | AUROC of pi | label model, seconds "
        "| linear probe, test accuracy, % |"
    )
    return ["", head, "|---|" + "---:|" * 6, *rows]


NOTES = """\
Every arm is given the same number of steps at the same batch size and ends at a learning rate of zero; the accuracy is
that of the last epoch, on the test split, with clean labels. Nothing was chosen on it. "Full data to the end" trains
for all epochs of the recipe, "full" stops at the budget of the others. Differences are paired by seed; p is of the
one-sided paired t-test. Samples, TFLOP and seconds count preliminary runs (EL2N, forgetting, proxy); seconds are of
training and choosing, {workers} run(s) side by side with {threads} thread(s) each, on a machine that was not always
quiet: compare samples and TFLOP. `similarity` and what is degraded
from it stand in for a web-scale CLIP and were made by networks that saw clean labels of the other half; `degraded94`
has an AUROC of 0.94 on synthetic symmetric noise, and less on human noise. `clip` on CIFAR-10 is a small one, trained
with true captions of the first 20,000 training pictures among others; on the digits, one trained on a split apart.
AUROC is of low q, or low pi, as a sign of a wrong label."""


def write_report(folder: Path, runs: Sequence[Run]) -> None:
    """Write `README.md`, `results.json` and the charts."""
    config = read_json(folder / "config.json")
    machine = config["hardware"]
    notes = NOTES.format(workers=machine["workers"], threads=machine["threads_per_worker"])
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    lines = [f"# {folder.name}", "", notes, ""]
    lines += [f"Hardware: {machine['gpu'] or machine['cpu']}, {machine['cores']} cores. Versions: {versions}.", ""]
    lines += ["Made by:", "", *(f"    {command}" for command in config["commands"])]
    for labels in dict.fromkeys(r["labels"] for r in runs):
        wrong = config["data"].get(labels, {}).get("wrong_labels")
        about = "" if wrong is None else f" ({100 * wrong:.1f} % of the training labels are wrong)"
        lines += ["", f"## Labels: {labels}{about}"]
        for keep in sorted({r["keep"] for r in runs if r["labels"] == labels and r["arm"] != "full"}, reverse=True):
            lines += ["", f"### Keep {100 * keep:g} % (prune {100 * (1 - keep):g} %)", ""]
            lines += main_table(runs, labels, keep)
            named = sorted({arm_name(r) for r in runs if r["arm"] in config["references"]})
            for reference in named:
                lines += reference_table(runs, labels, keep, reference)
        lines += semantics_lines(runs, labels)
        lines += ["", *write_figures(folder, runs, labels, full_curve(runs, labels), arm_name)]
    alarms = sorted({(arm_name(r), r["labels"], a) for r in runs for a in r["alarms"]})
    if alarms:
        lines += ["", "## Alarms", "", *(f"* {arm}, {labels}: {text}" for arm, labels, text in alarms)]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    write_json(folder / "results.json", [{k: r[k] for k in SHORT} for r in runs])


SHORT = ("labels", "arm", "keep", "seed", "semantics", "test_accuracy", "validation_accuracy", "backward_samples")
