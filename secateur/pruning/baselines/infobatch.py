"""InfoBatch (arXiv 2303.04947): fewer easy samples, and larger weights for those that stay."""

import numpy as np

from secateur.pruning.baselines.chance import ANNEALING_FROM, by_chance
from secateur.pruning.losses import SampleLosses
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict
from secateur.pruning.selection import Singles, top
from secateur.streams import uniform

RATIO = 0.5  # r: fraction of the easy samples that is left out
FIRST_SCORE = 3.0  # of a sample before its first visit


def last_losses(losses: SampleLosses) -> Singles:
    """The last loss of every sample, and 3 for those without one, float32 (N,)."""
    return np.where(losses.visits_N > 0, losses.last_N, np.float32(FIRST_SCORE))


class InfoBatch(Method):
    """Leaves out half of the samples whose loss is below the mean, and doubles the weight of the other half.

    The expected gradient of an epoch is that of all samples. It cannot be told how much to keep: it is run as it is,
    and stopped when the budget is spent. After 7/8 of it all samples are visited, with weight 1.
    """

    summary = "a random half of the easy samples, with double weight, beside all hard ones; ignores keep"
    paper = "InfoBatch, arXiv 2303.04947"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw among the samples whose last loss is below the mean."""
        active_N = np.ones(len(samples), dtype=bool)
        if progress.done >= ANNEALING_FROM:
            return Selection(active_N, phase="anneal")
        loss_N = last_losses(samples.losses)
        easy = np.flatnonzero(loss_N < loss_N.mean(dtype=np.float64))
        even = uniform(samples.key_N[easy], "selection", progress.seed, progress.epoch)
        stays = top(even, int((1 - RATIO) * len(easy)), samples.key_N[easy])
        active_N[easy] = stays
        weight_N = np.ones(len(samples), dtype=np.float32)
        weight_N[easy[stays]] = 1 / (1 - RATIO)
        return Selection(active_N, weight_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last epoch's samples."""
        return by_chance(selection.active_N)
