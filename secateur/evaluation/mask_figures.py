"""Figures about the mask: which samples it dropped, and what was known of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secateur.evaluation.charts import (
    MAX_ROWS,
    ODDS_CAPTION,
    Figure,
    Group,
    bar_rows,
    chosen_rows,
    group_legend,
    histogram,
    odds_histogram,
)
from secateur.evaluation.svg import Axis, around
from secateur.pruning.mask import Mask

REASONS = ("inconsistent", "relabelled", "hard", "redundant", "unused", "floor", "kept")
Labels = npt.NDArray[np.int32]


def groups_by_reason(mask: Mask) -> list[Group]:
    """Samples by the reason of the mask."""
    return [Group(r, f"reason-{r}", mask.reason == r) for r in REASONS if (mask.reason == r).any()]


def groups_by_truth(truth_N: Labels, label_N: Labels) -> list[Group]:
    """Samples by whether their label is right; none where no true label is known."""
    known_N = truth_N >= 0
    if not known_N.any():
        return []
    groups = [
        Group("wrong label", "wrong", known_N & (truth_N != label_N)),
        Group("right label", "right", known_N & (truth_N == label_N)),
        Group("not known", "unknown", ~known_N),
    ]
    return [g for g in groups if g.member_N.any()]


def selection_figures(mask: Mask, truth_N: Labels, label_N: Labels, gate: float | None) -> list[Figure]:
    """How the score and the label probability are spread, by reason and by truth."""
    figures = []
    ways = {"reason": groups_by_reason(mask), "truth": groups_by_truth(truth_N, label_N)}
    ways = {way: groups for way, groups in ways.items() if groups}
    if mask.score.min() < mask.score.max():
        figures += [score_figure(mask, way, groups) for way, groups in ways.items()]
    if np.isfinite(mask.label_probability).all():
        figures += [probability_figure(mask, way, groups, gate) for way, groups in ways.items()]
    return figures


def score_figure(mask: Mask, way: str, groups: Sequence[Group]) -> Figure:
    """Distribution of the score."""
    low, high = np.quantile(mask.score, [0.002, 0.998]).tolist()
    if low == high:
        low, high = float(mask.score.min()), float(mask.score.max())
    values = [(g.name, g.colour, mask.score[g.member_N]) for g in groups]
    x = Axis(low, high, "score (higher: rather kept)")
    return Figure(
        f"Score, by {way}", histogram(f"Distribution of the score by {way}", values, x), legend=group_legend(groups)
    )


def probability_figure(mask: Mask, way: str, groups: Sequence[Group], gate: float | None) -> Figure:
    """Distribution of the probability that the label is right, over its odds."""
    values = [(g.name, g.colour, mask.label_probability[g.member_N]) for g in groups]
    return Figure(
        f"Label probability, by {way}",
        odds_histogram(
            f"Distribution of the label probability by {way}",
            values,
            "probability that the label is right",
            (gate, f"gate {100 * gate:g} %") if gate else None,
        ),
        ODDS_CAPTION,
        group_legend(groups),
    )


def dropped_figure(mask: Mask, label_N: Labels, classes: Sequence[str]) -> Figure:
    """Fraction dropped of each class, by reason."""
    groups = [Group(g.name, g.colour, g.member_N & ~mask.kept) for g in groups_by_reason(mask)]
    groups = [g for g in groups if g.member_N.any()]
    count_C = np.bincount(label_N, minlength=len(classes))
    share_GC = np.array([np.bincount(label_N[g.member_N], minlength=len(classes)) / count_C for g in groups])
    rows, cut = chosen_rows(-share_GC.sum(axis=0))
    bars = [
        (classes[c], [(g.name, g.colour, float(s[c])) for g, s in zip(groups, share_GC, strict=True)]) for c in rows
    ]
    x = Axis(0, around([0.0, float(share_GC.sum(axis=0).max())], 0, 1)[1], "of the class", percent=True)
    return Figure(
        "Dropped per class",
        bar_rows("Fraction of the training samples of each class that was dropped, by reason", bars, x),
        "By given label." + (f" The {MAX_ROWS} classes that lost most, of {len(classes)}." if cut else ""),
        group_legend(groups),
    )
