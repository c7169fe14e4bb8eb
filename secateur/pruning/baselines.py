"""Methods that the others are judged by."""

import numpy as np

from secateur.pruning.method import Method, Progress, Reason, Samples, Selection
from secateur.streams import uniform


class Full(Method):
    """All samples in every epoch; at a given budget that makes fewer epochs."""

    summary = "all samples, fewer epochs: ordinary training at the same budget"
    paper = "ordinary training"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Keep everything."""
        everything_N = np.ones(len(samples), dtype=bool)
        reason_N = np.full(len(samples), Reason.KEPT.value, dtype=object)
        return Selection(everything_N, everything_N, np.ones(len(samples)), reason_N)


class Random(Method):
    """A fresh even draw for every epoch."""

    summary = "a new random subset every epoch (dynamic random)"
    paper = "baseline of arXiv 2312.05599 and 2507.12750"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly, without replacement."""
        score_N = uniform(samples.key_N, "selection", progress.seed, progress.epoch)
        kept_N = np.zeros(len(samples), dtype=bool)
        kept_N[np.argsort(-score_N, kind="stable")[: self.count(samples)]] = True
        reason_N = np.where(kept_N, Reason.KEPT.value, Reason.UNUSED.value).astype(object)
        return Selection(kept_N, kept_N, score_N, reason_N)
