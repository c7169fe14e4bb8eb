"""The arithmetic that methods share: ranks, the soft mask with an exact budget, and the projection to a kept set."""

import numpy as np
import numpy.typing as npt

from secateur.streams import Keys, uniform

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

TIES = "ties"


def rank(value_N: npt.NDArray[np.floating], key_N: Keys, seed: int = 0) -> Floats:
    """Rank over the data set, in [0, 1]; ties fall by a seeded hash of the sample.

    >>> rank(np.array([3.0, 1.0, 2.0]), np.arange(3, dtype=np.uint64)).tolist()
    [1.0, 0.0, 0.5]
    """
    order = np.lexsort((uniform(key_N, TIES, seed), value_N))
    rank_N = np.empty(len(value_N))
    rank_N[order] = np.arange(len(value_N)) / max(1, len(value_N) - 1)
    return rank_N


def geometric(start: float, end: float, done: float) -> float:
    """Walk from `start` to `end` by equal factors; `done` in [0, 1].

    >>> geometric(4, 400, 0.5)
    40.0
    """
    return float(start * (end / start) ** min(1.0, max(0.0, done)))


def sigmoid(x_N: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x_N)))


def soft_mask(logit_N: Floats, scale: float, total: float, accepted_N: Bools | None = None) -> tuple[Floats, float]:
    """Soft mask with an exact budget: s = sigmoid(scale * (logit - mu)), with mu such that the sum of s is `total`.

    It is the maximiser of <s, logit> + H(s) / scale under the budget (L_compression made exact, METHOD of AdaPruner,
    arXiv 2312.05599); as `scale` grows it becomes top-k.

    Args:
        logit_N: Mask logits.
        scale: alpha, above 0.
        total: Wanted sum of the mask, in (0, number of accepted samples].
        accepted_N: Samples that may be kept at all; the others get 0. None for all.

    Returns:
        The mask, float64 (N,) in [0, 1], and mu.
    """
    accepted_N = np.ones(len(logit_N), dtype=bool) if accepted_N is None else accepted_N
    logit_M = logit_N[accepted_N]
    mask_N = np.zeros(len(logit_N))
    if total >= len(logit_M):
        mask_N[accepted_N] = 1.0
        return mask_N, -np.inf
    margin = (np.log(len(logit_M)) + 40) / scale
    low, high = float(logit_M.min()) - margin, float(logit_M.max()) + margin
    # Bisection until the interval is down to the resolution of a double.
    for _ in range(200):
        mu = 0.5 * (low + high)
        if mu in (low, high):
            break
        if sigmoid(scale * (logit_M - mu)).sum() > total:
            low = mu
        else:
            high = mu
    mask_N[accepted_N] = sigmoid(scale * (logit_M - mu))
    return mask_N, mu


def perturbed(logit_N: Floats, scale: float, mu: float, key_N: Keys, *stream: str | int) -> Floats:
    """Scores scale * (logit - mu) + logistic noise, whose largest entries are a sample without replacement.

    The noise is logit(u) with u uniform and seeded by sample and stream (the Gumbel trick for a Bernoulli): at a small
    scale the draw is nearly even, at a large one it is top-k.
    """
    u_N = uniform(key_N, *stream)
    noise_N = np.log(u_N + 2.0**-54) - np.log1p(-u_N)
    return np.asarray(scale * (logit_N - (mu if np.isfinite(mu) else 0.0)) + noise_N)


def class_quota(label_N: Ints, accepted_N: Bools, keep: float, floor: float) -> npt.NDArray[np.int64]:
    """Samples that each class is left with at least: min(floor * keep * n_c, accepted_c), rounded down, int64 (C,)."""
    count_C = np.bincount(label_N)
    accepted_C = np.bincount(label_N[accepted_N], minlength=len(count_C))
    return np.asarray(np.minimum(np.floor(floor * keep * count_C).astype(np.int64), accepted_C))


def project(
    score_N: Floats, count: int, label_N: Ints, key_N: Keys, accepted_N: Bools | None = None, floor: float = 0.0
) -> tuple[Bools, Bools]:
    """Choose exactly `count` samples: gate first, then the floor of every class, then the best of the rest.

    Args:
        score_N: What is best; ties fall by the hash of the sample.
        count: Samples to keep; fewer are kept only if the gate accepts fewer.
        label_N: Given labels.
        key_N: Random-stream keys of the samples.
        accepted_N: What the gate lets through; None for all.
        floor: Fraction of the kept fraction that every class is left with at least.

    Returns:
        The kept samples, and those among them that only the floor has kept, bool (N,) each.
    """
    samples = len(score_N)
    accepted_N = np.ones(samples, dtype=bool) if accepted_N is None else accepted_N
    count = min(count, int(accepted_N.sum()))
    # Best first; what the gate refuses comes last.
    order = np.lexsort((uniform(key_N, TIES), -score_N, ~accepted_N))
    plain_N = np.zeros(samples, dtype=bool)
    plain_N[order[:count]] = True
    if floor == 0:
        return plain_N, np.zeros(samples, dtype=bool)
    by_class = order[np.argsort(label_N[order], kind="stable")]
    start_C = np.searchsorted(label_N[by_class], np.arange(label_N.max() + 1))
    place = np.arange(samples) - start_C[label_N[by_class]]
    quota_C = class_quota(label_N, accepted_N, count / samples, floor)
    owed_N = np.zeros(samples, dtype=bool)
    owed_N[by_class[place < quota_C[label_N[by_class]]]] = True
    kept_N = owed_N.copy()
    rest = order[~owed_N[order]]
    kept_N[rest[: count - int(owed_N.sum())]] = True
    return kept_N, kept_N & ~plain_N
