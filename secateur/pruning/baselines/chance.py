"""Everything, or what chance draws."""

import numpy as np

from secateur.pruning.baselines.static import Static
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import CODE, Method, Progress, Reason, Samples, Selection, Verdict
from secateur.pruning.selection import Bools, top
from secateur.streams import uniform

ANNEALING_FROM = 0.875  # of pruning: InfoBatch's delta, arXiv 2303.04947; what anneals does so from here


def draw(samples: Samples, progress: Progress, count: int) -> Bools:
    """An epoch's even draw of `count` samples without replacement, bool (N,)."""
    even_N = uniform(samples.key_N, "selection", progress.seed, progress.epoch)
    return top(even_N, count, samples.key_N)


def by_chance(kept_N: Bools) -> Verdict:
    """A mask that says of the rest that it was not drawn."""
    reason_N = np.where(kept_N, CODE[Reason.KEPT], CODE[Reason.UNUSED])
    return Verdict(kept_N, kept_N.astype(np.float32), reason_N)


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
        return Selection(draw(samples, progress, self.count(samples)))

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last draw."""
        return by_chance(selection.active_N)


class RandomAnnealed(Method):
    """A fresh even draw for every epoch, and all samples at the end."""

    summary = "a new random subset every epoch, then all samples for the last eighth of the budget"
    paper = "dynamic random with the annealing of InfoBatch, arXiv 2303.04947"

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.drawn_N: Bools | None = None

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly; once seven eighths of the budget are spent, keep everything."""
        if progress.done >= ANNEALING_FROM and self.drawn_N is not None:
            return Selection(np.ones(len(samples), dtype=bool), phase="anneal")
        self.drawn_N = draw(samples, progress, self.count(samples))
        return Selection(self.drawn_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last draw before the annealing."""
        assert self.drawn_N is not None
        return by_chance(self.drawn_N)

    def state_dict(self) -> State:
        """The last draw."""
        return super().state_dict() | {"drawn": self.drawn_N}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.drawn_N = None if state["drawn"] is None else as_array(state["drawn"]).astype(bool)


class StaticRandom(Static):
    """One even draw for the whole run."""

    summary = "one random subset, the same in every epoch"
    paper = "baseline of arXiv 2312.05599"

    def choose(self, samples: Samples, progress: Progress) -> Bools:
        """Draw evenly, without replacement."""
        return top(uniform(samples.key_N, "selection", progress.seed), self.count(samples), samples.key_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The draw."""
        return by_chance(selection.active_N)
