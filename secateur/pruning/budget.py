"""How much of the kept fraction each part of a run gets."""

from functools import cache

import numpy as np

GRID = 512


def kept_fraction(done: float, keep: float, curve: float, annealing: float) -> float:
    """Fraction of the samples for an epoch, when early and late epochs get more than those in the middle.

    The fraction is min(1, a * (1 + curve * cos(2 pi done))). A run spends a budget of samples, so that an epoch on few
    samples takes less of it; `a` is solved for the harmonic mean over the budget, annealing included, to be `keep`:
    then a run has as many epochs as one that keeps the same fraction always. The last `annealing` keeps `keep` itself.

    Args:
        done: Fraction of the budget that is spent, in [0, 1).
        keep: Wanted mean fraction, in (0, 1].
        curve: Swing, in [0, 1); 0 keeps the same fraction always.
        annealing: Last fraction of the budget, which stays out of it.

    >>> kept_fraction(0.5, 0.3, 0.0, 0.125)
    0.3
    """
    if curve == 0 or keep == 1 or done >= 1 - annealing:
        return keep
    swing = 1 + curve * np.cos(2 * np.pi * done / (1 - annealing))
    return float(min(1.0, solved_level(keep, curve) * swing))


@cache
def solved_level(keep: float, curve: float) -> float:
    """The level around which the fraction swings, so that its harmonic mean is `keep`."""
    shape_G = 1 + curve * np.cos(2 * np.pi * (np.arange(GRID) + 0.5) / GRID)
    low, high = 0.0, 1 / (1 - curve)
    for _ in range(60):
        level = 0.5 * (low + high)
        low, high = (level, high) if np.mean(1 / np.minimum(1, level * shape_G)) > 1 / keep else (low, level)
    return level
