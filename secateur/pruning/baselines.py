"""Methods that the others are judged by."""

import numpy as np

from secateur.pruning.method import CODE, Method, Progress, Reason, Samples, Selection, Verdict
from secateur.pruning.selection import top
from secateur.streams import uniform


class Full(Method):
    """All samples in every epoch; at a given budget that makes fewer epochs."""

    summary = "all samples, fewer epochs: ordinary training at the same budget"
    paper = "ordinary training"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Keep everything."""
        return Selection(np.ones(len(samples), dtype=bool))


class Random(Method):
    """A fresh even draw for every epoch."""

    summary = "a new random subset every epoch (dynamic random)"
    paper = "baseline of arXiv 2312.05599 and 2507.12750"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly, without replacement."""
        even_N = uniform(samples.key_N, "selection", progress.seed, progress.epoch)
        return Selection(top(even_N, self.count(samples), samples.key_N))

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last draw."""
        kept_N = selection.active_N
        reason_N = np.where(kept_N, CODE[Reason.KEPT], CODE[Reason.UNUSED])
        return Verdict(kept_N, kept_N.astype(np.float32), reason_N)
