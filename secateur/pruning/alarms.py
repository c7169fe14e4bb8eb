"""What may be wrong with a selection, in sentences for people."""

import numpy as np
import numpy.typing as npt

from secateur.pruning.selection import Bools, Ints, Values, soft_mask

PROBED = 16_384  # samples that are looked at
STRIDE = 64  # between samples that are looked at, where an estimate will do


def indifferent(logit_N: Values, scale: float, keep: float) -> bool:
    """Whether the mask does not discriminate: most of it lies in (0.1, 0.9), and its entropy near that of chance."""
    part: Values = logit_N[:: max(1, len(logit_N) // PROBED)]
    soft, _ = soft_mask(part, scale, keep * len(part))
    soft = np.clip(soft, 1e-12, 1 - 1e-12)
    entropy = -(soft * np.log(soft) + (1 - soft) * np.log(1 - soft)).mean()
    chance = -(keep * np.log(keep) + (1 - keep) * np.log(1 - keep))
    return bool(((soft > 0.1) & (soft < 0.9)).mean() > 0.9 and entropy > 0.98 * chance)


def out_of_balance(difficulty_N: Values, consistency_N: Values) -> bool:
    """Whether one of two terms of a value moves the mask at least twenty times as much as the other."""
    low, high = sorted((float(np.std(difficulty_N)), float(np.std(consistency_N))))
    return 0 < 20 * low < high


def emptied_classes(label_N: Ints, accepted_N: Bools) -> npt.NDArray[np.int64]:
    """Classes of which the gate accepts nothing."""
    count_C = np.bincount(label_N)
    return np.flatnonzero((count_C > 0) & (np.bincount(label_N[accepted_N], minlength=len(count_C)) == 0))


def restless(before_P: npt.NDArray[np.uint8], now_P: npt.NDArray[np.uint8], size: int) -> bool:
    """Whether an epoch's choice has hardly more in common with the one before than two draws by chance.

    Args:
        before_P: Samples of the epoch before, as packed bits.
        now_P: Samples of this epoch, as packed bits.
        size: N, how many samples there are.
    """
    new, before = int(np.bitwise_count(now_P & ~before_P).sum()), int(np.bitwise_count(before_P).sum())
    return before < size and new > 0.9 * int(np.bitwise_count(now_P).sum()) * (1 - before / size)
