"""The cheapest uses of CLIP."""

import numpy as np

from secateur.pruning.baselines.chance import draw
from secateur.pruning.baselines.static import Highest
from secateur.pruning.method import CODE, Method, Progress, Reason, Samples, Selection, Semantics, Verdict
from secateur.pruning.selection import Bools, Values, top
from secateur.streams import uniform

COST = "CLIP embeddings of all pictures, once"


def semantics_of(samples: Samples) -> Semantics:
    """What CLIP says; the pruner has checked that it is there."""
    assert samples.semantics is not None
    return samples.semantics


def draw_accepted(method: Method, samples: Samples, progress: Progress, accepted_N: Bools) -> Bools:
    """An epoch's even draw among accepted samples, bool (N,); all of them, with an alarm, where they are too few."""
    accepted, count = np.flatnonzero(accepted_N), method.count(samples)
    if len(accepted) < count:
        method.alarm(
            f"keep {method.config.keep:g} is out of reach: the filter accepts {len(accepted) / len(samples):.3f} of "
            "the samples"
        )
    even = uniform(samples.key_N[accepted], "selection", progress.seed, progress.epoch)
    active_N = np.zeros(len(samples), dtype=bool)
    active_N[accepted] = top(even, count, samples.key_N[accepted])
    return active_N


def filtered(kept_N: Bools, score_N: Values, accepted_N: Bools) -> Verdict:
    """A mask that says of the rest that it was refused, or not drawn."""
    reason_N = np.where(accepted_N, CODE[Reason.UNUSED], CODE[Reason.INCONSISTENT])
    reason_N[kept_N] = CODE[Reason.KEPT]
    return Verdict(kept_N, score_N, reason_N)


class ClipThreshold(Highest):
    """The samples whose label fits the picture best."""

    summary = "the samples whose label CLIP finds most consistent, chosen once"
    paper = "CLIP score filtering, arXiv 2111.02114"
    cost = COST
    needs = ("semantics",)

    def score(self, samples: Samples) -> Values:
        """Semantic consistency q."""
        return semantics_of(samples).consistency_N

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The choice; what is out is inconsistent."""
        return filtered(selection.active_N, self.score(samples), selection.active_N)


class GateRandom(Method):
    """Chance, among labels that are probably right."""

    summary = "a new random subset every epoch, without the labels that are probably wrong"
    paper = "the gate of `multimodal`, and nothing else"
    cost = COST
    needs = ("semantics",)

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly from what the gate accepts."""
        accepted_N = semantics_of(samples).label_probability_N >= self.config.gate
        return Selection(draw_accepted(self, samples, progress, accepted_N))

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last draw."""
        probability_N = semantics_of(samples).label_probability_N
        return filtered(selection.active_N, probability_N, probability_N >= self.config.gate)


class RelabelRandom(Method):
    """Chance, with soft labels where the given one is probably wrong."""

    summary = "a new random subset every epoch; probably wrong labels are replaced by CLIP's soft ones"
    paper = "the relabelling of `multimodal`, and nothing else"
    cost = COST
    needs = ("semantics",)

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly from all."""
        return Selection(self.active(samples, progress), relabelled_N=self.wrong(samples))

    def active(self, samples: Samples, progress: Progress) -> Bools:
        """The epoch's samples."""
        return draw(samples, progress, self.count(samples))

    def wrong(self, samples: Samples) -> Bools:
        """The labels that are probably wrong."""
        return np.asarray(semantics_of(samples).label_probability_N < self.config.gate)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last epoch's samples."""
        kept_N = selection.active_N
        reason_N = np.where(kept_N, CODE[Reason.KEPT], CODE[Reason.UNUSED])
        reason_N[kept_N & self.wrong(samples)] = CODE[Reason.RELABELLED]
        return Verdict(kept_N, kept_N.astype(np.float32), reason_N)


class RelabelFull(RelabelRandom):
    """Everything, with soft labels where the given one is probably wrong."""

    summary = "all samples, fewer epochs; probably wrong labels are replaced by CLIP's soft ones"

    def active(self, samples: Samples, progress: Progress) -> Bools:
        """Everything."""
        return np.ones(len(samples), dtype=bool)
