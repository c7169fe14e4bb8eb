"""What a preliminary run observes of the samples: early errors, forgetting, and the highest losses of a batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secateur.pruning.selection import Bools, Ints, Singles


def el2n(logit_NC: npt.NDArray[np.floating], label_N: Ints) -> Singles:
    """Length of the error vector, EL2N = |softmax(logits) - onehot(label)|, float32 (N,) in [0, sqrt(2)].

    Its mean over networks early in training is the score of Paul et al., arXiv 2107.07075.

    >>> el2n(np.array([[800.0, 0.0], [0.0, 0.0], [0.0, 800.0]]), np.zeros(3, dtype=np.int32))
    array([0.        , 0.70710677, 1.4142135 ], dtype=float32)
    """
    shifted_NC = logit_NC.astype(np.float64) - logit_NC.max(axis=1, keepdims=True)
    error_NC = np.exp(shifted_NC)
    error_NC /= error_NC.sum(axis=1, keepdims=True)
    error_NC[np.arange(len(label_N)), label_N] -= 1
    return np.asarray(np.linalg.norm(error_NC, axis=1), dtype=np.float32)


class ForgettingEvents:
    """Counts how often each sample goes from right to wrong between two visits (Toneva et al., arXiv 1812.05159)."""

    def __init__(self, samples: int) -> None:
        self.events_N = np.zeros(samples, dtype=np.int32)
        self.visits_N = np.zeros(samples, dtype=np.int32)
        self.learned_N = np.zeros(samples, dtype=bool)  # right at some visit
        self.right_N = np.zeros(samples, dtype=bool)  # right at the last visit

    def record(self, index_B: npt.NDArray[np.int64], right_B: Bools) -> None:
        """Note whether samples, each at most once, were classified as their label says.

        Args:
            index_B: Positions of the samples.
            right_B: Whether the largest logit was that of the label.
        """
        self.events_N[index_B] += self.right_N[index_B] & ~right_B
        self.right_N[index_B] = right_B
        self.learned_N[index_B] |= right_B
        self.visits_N[index_B] += 1

    def score(self) -> Singles:
        """Forgetting events, float32 (N,); what was never right counts as forgotten most, once more than any visit."""
        return np.where(self.learned_N, self.events_N, self.visits_N.max() + 1).astype(np.float32)


def mark_counts(sizes: Sequence[int], keep: float) -> list[int]:
    """How many samples of each batch a proxy marks: the fraction `keep`, at least one, and of the epoch exactly so.

    >>> mark_counts([5, 5, 5], 0.5)
    [2, 3, 3]
    """
    ends = np.round(keep * np.cumsum([0, *sizes])).astype(int)
    return [max(1, int(count)) for count in np.diff(ends)]
