"""AdaPruner (arXiv 2312.05599) as it was released, for comparison; `adaptive` is the same idea made well-posed."""

import numpy as np
import numpy.typing as npt

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict, explain
from secateur.pruning.selection import Singles

EPSILON = 1e-5
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4  # SGD on the mask, as on the model
SCALE_START, SCALE_END = 0.1, 5.0  # alpha
PENALTY, PENALTY_SLOPE = 50.0, 50.0  # lambda of the first step; later 1 + slope * distance
SET_BACK = 16  # the scale goes back when the batches of one part in so many of an epoch kept too little
MISSED = 0.005  # distance from the asked ratio that is told
PLAIN = ("penalty", "walked", "short", "steps", "epochs_left", "iterations")  # of the state


def soft(logit_B: Singles, scale: float) -> Singles:
    """Soft mask sigmoid(scale * logit), float32 (B,)."""
    return np.asarray(0.5 * (1 + np.tanh(np.float32(0.5 * scale) * logit_B)), dtype=np.float32)


def mask_gradient(loss_B: Singles, soft_B: Singles, scale: float, penalty: float, keep: float) -> Singles:
    """Gradient of the released objective on the mask logits of a batch, float32 (B,).

    L = mean(loss * s) + mean(-log(loss + 1e-5) * s) + penalty * (mean(s) - keep)^2 with s = sigmoid(scale * m) and the
    loss held fixed.
    """
    compression = np.float32(2 * penalty * (soft_B.mean(dtype=np.float64) - keep))
    of_soft_B = (loss_B - np.log(loss_B + np.float32(EPSILON)) + compression) / len(loss_B)
    return np.asarray(of_soft_B * np.float32(scale) * soft_B * (1 - soft_B))


class AdaptiveReleased(Method):
    """A mask logit for each sample, from 1, moved by SGD at every step; what ends above 0 (s > 0.5) is kept.

    Every epoch visits all samples, weighted by their soft mask. Nothing ties the kept fraction to `keep`: the penalty
    holds the mean of s, while its weight and the scale watch the share of s > 0.5. An alarm names the ratio that came
    out. Where the paper and the release are silent, it is read so: the penalty and the scale of a step follow from the
    batch before; `all iterations` are those of the pruning phase; a set-back takes as many iterations from the scale's
    walk as batches of the epoch kept too little to cause it.
    """

    summary = "AdaPruner as released: a mask by SGD at every step, which may end far from the asked ratio"
    paper = "AdaPruner, arXiv 2312.05599, as released"
    cost = "a pass over the mask logits at every step"

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.logit_N: Singles = np.zeros(0, dtype=np.float32)
        self.velocity_N: Singles = np.zeros(0, dtype=np.float32)
        self.penalty = PENALTY
        self.walked = 0.0  # iterations by which the scale has gone on
        self.short = 0  # batches of this epoch, since the last set-back, that kept too little
        self.steps = 0
        self.epochs_left = 0.0  # of ordinary ones, when pruning began
        self.iterations = 0  # of the pruning phase; 0 before it is known

    @property
    def scale(self) -> float:
        """Alpha of the coming step."""
        return SCALE_START + (SCALE_END - SCALE_START) * self.walked / max(1, self.iterations)

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """All samples; their weights come step by step."""
        if not len(self.logit_N):
            self.logit_N = np.ones(len(samples), dtype=np.float32)
            self.velocity_N = np.zeros(len(samples), dtype=np.float32)
            self.epochs_left = max(1.0, self.config.epochs - progress.epoch)
        if progress.done > 0 and self.steps:
            iterations = max(1, round(self.steps / progress.done))
            self.walked *= iterations / (self.iterations or iterations)
            self.iterations = iterations
        self.short = 0
        return Selection(np.ones(len(samples), dtype=bool))

    def step(self, index_B: npt.NDArray[np.int64], loss_B: Singles) -> Singles:
        """The soft mask of a batch, float32 (B,), as it stands before the mask takes its own step."""
        if not self.iterations:  # the first epoch goes by the budget that every method has
            self.iterations = max(1, round(self.config.keep * self.epochs_left * len(self.logit_N) / len(index_B)))
        soft_B = soft(self.logit_N[index_B], self.scale)
        gradient_B = mask_gradient(loss_B, soft_B, self.scale, self.penalty, self.config.keep)
        self.velocity_N *= np.float32(MOMENTUM)
        self.velocity_N += np.float32(DECAY) * self.logit_N
        np.add.at(self.velocity_N, index_B, gradient_B)
        self.logit_N -= np.float32(RATE) * self.velocity_N
        self.steps += 1
        self.control(float((soft_B > 0.5).mean()), len(index_B))
        return soft_B

    def control(self, share: float, batch: int) -> None:
        """Set the penalty and the scale of the next step by the share of the batch with s > 0.5."""
        self.penalty = 1 + PENALTY_SLOPE * abs(share - self.config.keep)
        if share >= self.config.keep:
            self.walked = min(self.walked + 1, self.iterations)
            return
        self.short += 1
        patience = max(1, len(self.logit_N) // batch // SET_BACK)
        if self.short >= patience:
            self.walked, self.short = max(0.0, self.walked - patience), 0

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """What has s > 0.5; the scores are the mask logits."""
        kept_N = self.logit_N > 0
        share, missed = float(kept_N.mean()), "ratio missed: "
        self.alarms = [text for text in self.alarms if not text.startswith(missed)]
        if abs(share - self.config.keep) > MISSED:
            self.alarm(f"{missed}adaptive-released keeps {share:.3f} of the samples, asked for {self.config.keep:g}")
        return Verdict(kept_N, self.logit_N.copy(), explain(kept_N, samples.losses.difficulty()))

    def state_dict(self) -> State:
        """The mask, its momentum and its schedule."""
        plain = {name: getattr(self, name) for name in PLAIN}
        return super().state_dict() | plain | {"logit": self.logit_N.copy(), "velocity": self.velocity_N.copy()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        for name in PLAIN:
            setattr(self, name, state[name])
        self.logit_N = as_array(state["logit"]).astype(np.float32)
        self.velocity_N = as_array(state["velocity"]).astype(np.float32)
