"""The arithmetic that methods share: ranks, the soft mask with an exact budget, and the projection to a kept set."""

import numpy as np
import numpy.typing as npt

from secateur.streams import Keys, uniform

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

TIES = "ties"
LEVELS = 2**16
STRETCH = 2**16


def rank(value_N: Values, key_N: Keys, seed: int = 0) -> Singles:
    """Rank over the data set, float32 (N,) in [0, 1].

    Up to 65,536 samples ranks are exact, and ties fall by a seeded hash of the sample. Beyond that they have 16 bits,
    by a histogram over the bits of the values: values that differ by less than about 0.1 % share their mean rank.

    >>> rank(np.array([3.0, 1.0, 2.0]), np.arange(3, dtype=np.uint64)).tolist()
    [1.0, 0.0, 0.5]
    """
    samples = len(value_N)
    if samples <= LEVELS:
        order = np.argsort(value_N)  # vectorised where the CPU can, and then not stable
        in_order = value_N[order]
        same = in_order[1:] == in_order[:-1]
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        members = order[tied]
        order[tied] = members[np.lexsort((uniform(key_N[members], TIES, seed), value_N[members]))]
        rank_N = np.empty(samples, dtype=np.float32)
        rank_N[order] = np.arange(samples) / max(1, samples - 1)
        return rank_N
    level_N = levels(value_N)
    count_L = np.bincount(level_N, minlength=LEVELS)
    middle_L = np.cumsum(count_L) - 0.5 * (count_L + 1)
    return (middle_L / (samples - 1)).astype(np.float32)[level_N]


def levels(value_N: Values) -> npt.NDArray[np.uint16]:
    """Values in order-preserving steps of 16 bits, uint16 (N,): fine for small numbers, coarse for large ones."""
    bits_N = np.asarray(value_N, dtype=np.float32).view(np.uint32)
    top_bit = np.uint32(2**31)
    if bits_N.max() >= top_bit:
        # The bits of floats are in order but for the sign: negative ones come backwards, and after the positive ones.
        bits_N = np.where(bits_N >= top_bit, ~bits_N, bits_N | top_bit)
    low = bits_N.min()
    shift = max(0, int(bits_N.max() - low).bit_length() - 16)
    return np.asarray((bits_N - low) >> np.uint32(shift), dtype=np.uint16)


def geometric(start: float, end: float, done: float) -> float:
    """Walk from `start` to `end` by equal factors; `done` in [0, 1].

    >>> geometric(4, 400, 0.5)
    40.0
    """
    return float(start * (end / start) ** min(1.0, max(0.0, done)))


def soft_mask(logit_N: Values, scale: float, total: float, accepted_N: Bools | None = None) -> tuple[Floats, float]:
    """Soft mask with an exact budget: s = sigmoid(scale * (logit - mu)), with mu such that the sum of s is `total`.

    It is the maximiser of <s, logit> + H(s) / scale under the budget (L_compression of AdaPruner, arXiv 2312.05599,
    made exact); as `scale` grows it becomes top-k.

    Args:
        logit_N: Mask logits, float32 or float64 (N,).
        scale: alpha, above 0.
        total: Wanted sum of the mask, in (0, number of accepted samples].
        accepted_N: Samples that may be kept at all; the others get 0. None for all.

    Returns:
        The mask, float64 (N,) in [0, 1], and mu. Its sum is right to 1e-9 for float64 logits, to 1e-6 for float32.
    """
    logit_M = logit_N if accepted_N is None else np.compress(accepted_N, logit_N)
    soft_M: Values
    if total >= len(logit_M):
        soft_M, mu = np.ones(len(logit_M)), -np.inf
    else:
        soft_M, mu = solve(logit_M, scale, total)
    if accepted_N is None:
        return soft_M.astype(np.float64, copy=False), mu
    mask_N = np.zeros(len(logit_N))
    mask_N[accepted_N] = soft_M
    return mask_N, mu


def solve(logit_M: Values, scale: float, total: float) -> tuple[Values, float]:
    """The mask and its mu: Newton's steps inside a bracket, from the start that a sample of the logits gives.

    It works with t = tanh(scale / 2 * (logit - mu)) = 2 s - 1 in the precision of the logits; sums are in double.
    """
    exact = 1e-9 if logit_M.dtype == np.float64 else 2e-7
    margin = (np.log(len(logit_M)) + 40) / scale
    low, high = float(logit_M.min()) - margin, float(logit_M.max()) + margin
    mu = 0.5 * (low + high)
    if len(logit_M) > LEVELS:
        part = logit_M[:: len(logit_M) // 4096].astype(np.float64)
        mu = solve(part, scale, total / len(logit_M) * len(part))[1]
    while True:
        # What float32 leaves of mu goes off after the scaling, so that tied logits near mu do not lose digits.
        coarse = float(np.float32(mu))
        tanh_M = logit_M - coarse
        tanh_M *= 0.5 * scale
        tanh_M -= 0.5 * scale * (mu - coarse)
        np.tanh(tanh_M, out=tanh_M)
        over = 0.5 * (len(tanh_M) + float(tanh_M.sum(dtype=np.float64))) - total
        if abs(over) <= exact * total:
            break
        low, high = (mu, high) if over > 0 else (low, mu)
        slope = 0.25 * scale * (len(tanh_M) - float(np.dot(tanh_M, tanh_M)))
        step = mu + over / slope if slope > 0 else low
        mu_next = step if low < step < high else 0.5 * (low + high)
        if mu_next in (low, high, mu):  # the interval is down to the resolution of a double
            break
        mu = mu_next
    tanh_M += 1
    tanh_M *= 0.5
    return tanh_M, mu


def noisy(logit_N: Values, scale: float, key_N: Keys, *stream: str | int) -> Singles:
    """Scores scale * logit + logistic noise, whose largest entries are a sample without replacement, float32 (N,).

    The noise is log(u / (1 - u)) with u uniform and seeded by sample and stream (the Gumbel trick for a Bernoulli): at
    a small scale the draw is nearly even, at a large one it is top-k.
    """
    u_N = uniform(key_N, *stream).astype(np.float32)
    u_N += np.float32(2.0**-25)
    u_N /= np.float32(1 + 2.0**-23) - u_N
    np.log(u_N, out=u_N)
    u_N += np.float32(scale) * logit_N.astype(np.float32, copy=False)
    return u_N


def top(score_N: Values, count: int, key_N: Keys) -> Bools:
    """The `count` samples with the highest scores, bool (N,); ties fall by the hash of the sample."""
    if count >= len(score_N):
        return np.ones(len(score_N), dtype=bool)
    if count <= 0:
        return np.zeros(len(score_N), dtype=bool)
    place = len(score_N) - count
    threshold = np.partition(score_N, place)[place]
    top_N = np.asarray(score_N > threshold)
    missing = count - np.count_nonzero(top_N)
    tied = np.flatnonzero(score_N == threshold)
    if missing < len(tied):
        tied = tied[np.argsort(uniform(key_N[tied], TIES), kind="stable")[:missing]]
    top_N[tied] = True
    return top_N


def class_counts(label_N: Ints, member_N: Bools | None, classes: int) -> npt.NDArray[np.int64]:
    """Members of each class, int64 (C,); a stretch at a time, which stays in the processor's cache."""
    count_C = np.zeros(classes, dtype=np.int64)
    for start in range(0, len(label_N), STRETCH):
        label_M = label_N[start : start + STRETCH]
        label_M = label_M if member_N is None else np.compress(member_N[start : start + STRETCH], label_M)
        count_C += np.bincount(label_M, minlength=classes)
    return count_C


def project(
    score_N: Values, count: int, label_N: Ints, key_N: Keys, accepted_N: Bools | None = None, floor: float = 0.0
) -> tuple[Bools, Bools]:
    """Choose exactly `count` samples: gate first, then the floor of every class, then the best of the rest.

    Args:
        score_N: What is best, finite; ties fall by the hash of the sample.
        count: Samples to keep; fewer are kept only if the gate accepts fewer.
        label_N: Given labels.
        key_N: Random-stream keys of the samples.
        accepted_N: What the gate lets through; None for all.
        floor: Fraction of the kept fraction that every class is left with at least.

    Returns:
        The kept samples, and those among them that only the floor has kept, bool (N,) each.
    """
    if accepted_N is not None:
        count = min(count, int(np.count_nonzero(accepted_N)))
        score_N = np.where(accepted_N, score_N, score_N.dtype.type(-np.inf))
    plain_N = top(score_N, count, key_N)
    none_N = np.zeros(len(score_N), dtype=bool)
    if floor == 0:
        return plain_N, none_N
    # Every class is left with min(floor * keep * n_c, accepted_c), rounded down.
    size_C = class_counts(label_N, None, int(label_N.max()) + 1)
    quota_C = np.floor(floor * (count / len(score_N)) * size_C).astype(np.int64)
    if (class_counts(label_N, plain_N, len(quota_C)) >= quota_C).all():
        return plain_N, none_N
    if accepted_N is not None:
        quota_C = np.minimum(quota_C, class_counts(label_N, accepted_N, len(quota_C)))
    owed_N = none_N.copy()
    for label in np.flatnonzero(quota_C):
        members = np.flatnonzero(label_N == label)
        owed_N[members[top(score_N[members], int(quota_C[label]), key_N[members])]] = True
    rest = np.flatnonzero(~owed_N)
    kept_N = owed_N.copy()
    kept_N[rest[top(score_N[rest], count - int(np.count_nonzero(owed_N)), key_N[rest])]] = True
    return kept_N, kept_N & ~plain_N
