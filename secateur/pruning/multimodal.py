"""Dynamic pruning under two signals, difficulty and semantic consistency, after arXiv 2507.12750."""

import numpy as np

from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Semantics, explain
from secateur.pruning.selection import Bools, Floats, geometric, perturbed, project, rank, soft_mask
from secateur.streams import uniform


class Multimodal(Method):
    """Hard samples that CLIP finds consistent with their label are kept; what is probably mislabelled is gated out."""

    summary = "hard samples whose label CLIP finds consistent; probably wrong labels are gated out"
    paper = "after multimodal-guided dynamic pruning, arXiv 2507.12750"
    needs = ("semantics",)

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.logit_N: Floats | None = None
        self.frozen: tuple[Bools, Bools] | None = None  # kept and floor of the last selection update

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Take one mirror-descent step on the mask, then draw the epoch's samples from it."""
        config, loss_N, count = self.config, samples.losses.difficulty(), self.count(samples)
        semantics = require_semantics(samples)
        accepted_N = semantics.label_probability_N >= config.gate
        if accepted_N.sum() < count:
            self.alarm(
                f"keep {config.keep:g} is out of reach: the gate accepts {accepted_N.mean():.3f} of the samples; "
                "lower gate to keep more"
            )
        if progress.done >= 1 - config.annealing and self.logit_N is not None and self.frozen is not None:
            even_N = uniform(samples.key_N, "selection", progress.seed, progress.epoch)
            active_N, _ = project(even_N, count, samples.label_N, samples.key_N, accepted_N, config.class_floor)
            return self.answer(active_N, samples, loss_N, accepted_N, "anneal")
        value_N = rank(loss_N, samples.key_N, progress.seed)
        if config.semantic_weight:
            value_N = value_N + config.semantic_weight * rank(semantics.consistency_N, samples.key_N, progress.seed)
        before_N = np.zeros(len(samples)) if self.logit_N is None else self.logit_N
        self.logit_N = (1 - config.rate) * before_N + config.rate * value_N
        scale = geometric(config.scale_start, config.scale_end, progress.done / (1 - config.annealing))
        _, mu = soft_mask(self.logit_N, scale, min(count, accepted_N.sum()), accepted_N)
        draw_N = perturbed(self.logit_N, scale, mu, samples.key_N, "selection", progress.seed, progress.epoch)
        active_N, _ = project(draw_N, count, samples.label_N, samples.key_N, accepted_N, config.class_floor)
        self.frozen = project(self.logit_N, count, samples.label_N, samples.key_N, accepted_N, config.class_floor)
        return self.answer(active_N, samples, loss_N, accepted_N, "prune")

    def answer(self, active_N: Bools, samples: Samples, loss_N: Floats, accepted_N: Bools, phase: str) -> Selection:
        """Put the draw of the epoch and the mask of the last update together."""
        assert self.frozen is not None
        assert self.logit_N is not None
        kept_N, floor_N = self.frozen
        # What is gated out ranks below all the rest, by the probability that its label is right.
        score_N = np.where(accepted_N, self.logit_N, require_semantics(samples).label_probability_N - 1)
        return Selection(active_N, kept_N, score_N, explain(kept_N, floor_N, loss_N, accepted_N), phase=phase)

    def state_dict(self) -> State:
        """Mask logits and the mask of the last update."""
        frozen = None if self.frozen is None else [part.astype(np.uint8) for part in self.frozen]
        return super().state_dict() | {"logit": self.logit_N, "frozen": frozen}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.logit_N = None if state["logit"] is None else as_array(state["logit"]).astype(np.float64)
        if state["frozen"] is not None:
            kept, floor = (as_array(part).astype(bool) for part in state["frozen"])
            self.frozen = (kept, floor)


def require_semantics(samples: Samples) -> Semantics:
    """What CLIP says.

    Raises:
        InputError: Nothing was given.
    """
    if samples.semantics is None:
        raise InputError("method 'multimodal' must have semantics, got none: pass the CLIP embeddings of the data set")
    return samples.semantics
