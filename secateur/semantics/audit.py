"""A stratified sample for a person to judge, and what the judgements make of the findings."""

from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError, require_range
from secateur.semantics.consistency import Floats
from secateur.semantics.findings import Estimate, Findings, with_probability
from secateur.streams import Keys, shuffled, stream_seed

STRATA = 20
LEAST = 0.02  # probability of being wrong or right that is taken for the smallest, when strata are drawn
DRAWS = 2000

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]


def draw_strata(probability_wrong_N: Floats) -> Ints:
    """Stratum of each sample, int64 (N,): by rank, each with the same sum of sqrt(P * (1 - P)).

    With as many judgements in each stratum, that is close to the best allocation (Dalenius and Hodges, 1959).
    """
    expected_N = np.clip(probability_wrong_N, LEAST, 1 - LEAST)
    order = np.argsort(probability_wrong_N, kind="stable")
    spread = np.cumsum(np.sqrt(expected_N[order] * (1 - expected_N[order])))
    stratum_N = np.empty(len(order), dtype=np.int64)
    stratum_N[order] = np.minimum(spread / spread[-1] * STRATA, STRATA - 1).astype(np.int64)
    return stratum_N


def draw_audit(findings: Findings, count: int, keys_N: Keys, seed: int = 0) -> Ints:
    """Draw samples to judge, as many from each of 20 strata of their probability of being wrong.

    Args:
        findings: What was found.
        count: How many; 200 are enough for the rate within two points.
        keys_N: Of the samples.
        seed: Of the draw.

    Returns:
        Positions, int64 (A,), one of each stratum after the other: whoever stops early has judged all strata alike.

    Raises:
        InputError: Fewer than 20 or more than there are.
    """
    require_range("audit", count, STRATA, len(keys_N))
    stratum_N, order = draw_strata(findings.probability_wrong_N), shuffled(keys_N, "audit", seed)
    turn_N = np.empty(len(order), dtype=np.int64)  # place of each sample in its stratum's random order
    for stratum in range(STRATA):
        member = order[stratum_N[order] == stratum]
        turn_N[member] = np.arange(len(member))
    return np.lexsort((order.argsort(), turn_N))[:count]


def calibrate(
    findings: Findings,
    label_N: npt.NDArray[np.integer],
    position_A: Ints,
    judged_wrong_A: Bools,
    seed: int = 0,
) -> Findings:
    """Correct probabilities and rate by what a person says of some samples.

    Judgements, each weighted by the samples that it stands for, are fitted by a step function that rises with the
    probability of being wrong (isotonic regression; Zadrozny and Elkan, KDD 2002). The rate is its mean; its 95 %
    interval comes from a parametric bootstrap, in which the rate of every step is drawn from what the judgements leave
    open, Beta(wrong + 1/2, right + 1/2). Probabilities run through the middles of the steps, so their order stays.

    Args:
        findings: Those that the audit was drawn from.
        label_N: Given labels.
        position_A: Which samples were judged; not all that were drawn need be.
        judged_wrong_A: Whether the given label is wrong.
        seed: Of the bootstrap.

    Raises:
        InputError: No judgements, two of one sample, or one of a sample that is not there.
    """
    position_A, judged_wrong_A = np.asarray(position_A, dtype=np.int64), np.asarray(judged_wrong_A, dtype=bool)
    check_judgements(len(label_N), position_A, judged_wrong_A)
    order = np.argsort(findings.probability_wrong_N, kind="stable")
    rank_N = np.empty(len(order))
    rank_N[order] = (np.arange(len(order)) + 0.5) / len(order)
    share_S, wrong_S, count_S, value_S = fit_steps(findings.probability_wrong_N, position_A, judged_wrong_A)
    rng = np.random.default_rng(stream_seed("audit interval", seed))
    draw_DS = rng.beta(wrong_S + 0.5, count_S - wrong_S + 0.5, (DRAWS, len(wrong_S)))
    value, (low, high) = float(share_S @ value_S), np.quantile(draw_DS @ share_S, [0.025, 0.975])
    rate = Estimate(value, min(float(low), value), max(float(high), value))
    middle_S = np.cumsum(share_S) - share_S / 2
    height_S = np.maximum.accumulate((value_S * count_S + 0.5) / (count_S + 1))
    calibrated_N = np.interp(rank_N, [0.0, *middle_S, 1.0], [0.0, *height_S, 1.0])
    doubt_N = calibrated_N.copy()
    doubt_N[position_A] = judged_wrong_A
    return with_probability(findings, label_N.astype(np.int32), calibrated_N, doubt_N, rate, len(position_A))


def check_judgements(size: int, position_A: Ints, judged_wrong_A: Bools) -> None:
    """Check that some of `size` samples were judged, each once.

    Raises:
        InputError: They were not.
    """
    if not len(position_A) or len(position_A) != len(judged_wrong_A):
        raise InputError(
            f"audit must have one judgement or more, got {len(judged_wrong_A)} of {len(position_A)} samples"
        )
    if position_A.min() < 0 or position_A.max() >= size:
        raise InputError(f"audit must name samples in [0, {size}), got {position_A.min()} to {position_A.max()}")
    if len(np.unique(position_A)) < len(position_A):
        raise InputError(f"audit must judge a sample once, got {len(position_A)} judgements of fewer samples")


def fit_steps(
    probability_wrong_N: Floats, position_A: Ints, judged_wrong_A: Bools
) -> tuple[Values, Values, Values, Values]:
    """The rising steps: share of all samples, judged wrong, judged, and fitted rate of each.

    Strata without a judgement go with the one below, the first ones with the one above.
    """
    from sklearn.isotonic import isotonic_regression  # takes a second to import

    stratum_N = draw_strata(probability_wrong_N)
    count_H, size_H = (np.bincount(s, minlength=STRATA).astype(float) for s in (stratum_N[position_A], stratum_N))
    wrong_H = np.bincount(stratum_N[position_A], judged_wrong_A, minlength=STRATA)
    home_H = np.maximum(np.cumsum(count_H > 0) - 1, 0)  # strata that were judged, numbered from 0
    size_K, judged = np.bincount(home_H, size_H), count_H > 0
    rate_K = isotonic_regression(wrong_H[judged] / count_H[judged], sample_weight=size_K)
    step_K = np.concatenate([[0], np.cumsum(np.diff(rate_K) > 1e-12)])
    share_S = np.bincount(step_K, size_K / size_K.sum())
    wrong_S, count_S = (np.bincount(step_K, value_H[judged]) for value_H in (wrong_H, count_H))
    value_S = np.bincount(step_K, rate_K * size_K) / np.bincount(step_K, size_K)
    return share_S, wrong_S, count_S, value_S
