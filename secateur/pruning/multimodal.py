"""Dynamic pruning under two signals, difficulty and semantic consistency, after arXiv 2507.12750."""

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError
from secateur.pruning import alarms
from secateur.pruning.budget import kept_fraction
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import CODE, Method, Progress, Reason, Samples, Selection, Semantics, Verdict, explain
from secateur.pruning.selection import LEVELS, Bools, Singles, Values, geometric, noisy, project, rank
from secateur.streams import uniform


def move(logit_N: Singles | None, value_N: Singles, rate: float) -> Singles:
    """One mirror-descent step: w <- (1 - rate) * w + rate * v, from w = 0 at first.

    With s = sigmoid(alpha * (w - mu)) and mu such that s spends the budget, s is the maximiser of
    rate * alpha * <s, v> + rate * H(s) - (1 - rate) * KL(s, s before).
    """
    eta = np.float32(rate)
    return eta * value_N if logit_N is None else (1 - eta) * logit_N + eta * value_N


class Multimodal(Method):
    """Hard samples that CLIP finds consistent with their label are kept.

    A sample whose label is probably wrong is left out, or trained towards CLIP's soft label.
    """

    summary = "hard samples whose label CLIP finds consistent; probably wrong labels are gated out, or mended"
    paper = "after multimodal-guided dynamic pruning, arXiv 2507.12750"
    cost = "one CLIP embedding of each picture, once for a data set"
    needs = ("semantics",)
    settles = True

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.logit_N: Singles | None = None
        self.consistency_N: npt.NDArray[np.uint16] | None = None  # its rank, which never changes, in 16 bits

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Take one step on the mask, then draw the epoch's samples from it."""
        config, semantics = self.config, require_semantics(samples)
        trusted_N = self.trusted(semantics)
        if self.logit_N is None:
            self.look(samples, semantics, trusted_N)
        accepted_N = None if config.relabel else trusted_N
        annealed = progress.done >= 1 - config.annealing and self.logit_N is not None
        if not annealed:
            self.learn(samples, progress)
        draw_N = self.evenly(samples, progress) if annealed else self.softly(samples, progress)
        keep = kept_fraction(progress.done, config.keep, config.curve, config.annealing)
        count = max(1, round(keep * len(samples)))
        active_N, _ = project(draw_N, count, samples.label_N, samples.key_N, accepted_N, config.class_floor)
        relabelled_N = None if accepted_N is not None or trusted_N.all() else ~trusted_N
        return Selection(active_N, relabelled_N=relabelled_N, phase="anneal" if annealed else "prune")

    def evenly(self, samples: Samples, progress: Progress) -> Values:
        """Scores of a draw by chance alone."""
        return uniform(samples.key_N, "selection", progress.seed, progress.epoch)

    def softly(self, samples: Samples, progress: Progress) -> Values:
        """Scores of a draw from the soft mask."""
        config = self.config
        assert self.logit_N is not None
        scale = geometric(config.scale_start, config.scale_end, progress.done / (1 - config.annealing))
        if config.keep < 1 and progress.done > 0.5 and alarms.indifferent(self.logit_N, scale, config.keep):
            self.alarm("scores that do not discriminate: in mid-run the soft mask is still close to chance")
        return noisy(self.logit_N, scale, samples.key_N, "selection", progress.seed, progress.epoch)

    def trusted(self, semantics: Semantics) -> Bools:
        """Samples whose label passes the gate, bool (N,); all where everything is to be kept."""
        return np.asarray(semantics.label_probability_N >= (self.config.gate if self.config.keep < 1 else 0.0))

    def look(self, samples: Samples, semantics: Semantics, trusted_N: Bools) -> None:
        """Raise the alarms that can be raised at the start."""
        config, trusted = self.config, float(trusted_N.mean())
        if not config.relabel and trusted < config.keep:
            self.alarm(
                f"keep {config.keep:g} is out of reach: the gate accepts {trusted:.3f} of the samples; "
                "lower gate to keep more"
            )
        if not config.relabel:
            for label in alarms.emptied_classes(samples.label_N, trusted_N):
                self.alarm(f"the gate accepts no sample of class {label}")
        if not semantics.fits:
            self.alarm(
                "a CLIP that does not fit: it agrees with the labels no more than chance; its ranks are left out"
            )

    def learn(self, samples: Samples, progress: Progress) -> None:
        """Move the mask logits towards the value of the samples."""
        config, semantics = self.config, require_semantics(samples)
        hard_N = np.float32(config.difficulty_weight) * rank(samples.losses.difficulty(), samples.key_N, progress.seed)
        if config.semantic_weight and semantics.fits:
            if self.consistency_N is None:
                rank_N = rank(semantics.consistency_N, samples.key_N, progress.seed)
                self.consistency_N = np.rint(rank_N * (LEVELS - 1)).astype(np.uint16)
            fit_N = self.consistency_N * np.float32(config.semantic_weight / (LEVELS - 1))
            if alarms.out_of_balance(hard_N[:: alarms.STRIDE], fit_N[:: alarms.STRIDE]):
                self.alarm("terms out of balance: difficulty or consistency moves the mask twenty times as much")
            hard_N += fit_N
        self.logit_N = move(self.logit_N, hard_N, config.rate)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The top of the mask logits; what is gated out ranks below, by the probability that its label is right."""
        assert self.logit_N is not None
        semantics = require_semantics(samples)
        trusted_N, probability_N = self.trusted(semantics), semantics.label_probability_N
        accepted_N = None if self.config.relabel else trusted_N
        kept_N, floor_N = project(
            self.logit_N, self.count(samples), samples.label_N, samples.key_N, accepted_N, self.config.class_floor
        )
        reason_N = explain(kept_N, samples.losses.difficulty(), floor_N, trusted_N)
        if self.config.relabel:
            reason_N[kept_N & ~trusted_N] = CODE[Reason.RELABELLED]
            return Verdict(kept_N, self.logit_N, reason_N)
        return Verdict(kept_N, np.where(trusted_N, self.logit_N, probability_N.astype(np.float32) - 1), reason_N)

    def state_dict(self) -> State:
        """Mask logits."""
        return super().state_dict() | {"logit": self.logit_N}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.logit_N = None if state["logit"] is None else as_array(state["logit"]).astype(np.float32)


def require_semantics(samples: Samples) -> Semantics:
    """What CLIP says.

    Raises:
        InputError: Nothing was given.
    """
    if samples.semantics is None:
        raise InputError("method 'multimodal' must have semantics, got none: pass the CLIP embeddings of the data set")
    return samples.semantics
