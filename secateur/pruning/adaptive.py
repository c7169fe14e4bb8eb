"""AdaPruner (arXiv 2312.05599) with its three forces made well-posed: a mask learned with the model."""

import logging

import numpy as np

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict, explain
from secateur.pruning.selection import Singles, Values, geometric, project, soft_mask

log = logging.getLogger(__name__)

EPSILON = 1e-5
DEADLINE = 0.9  # fraction of pruning by which the kept fraction must have arrived, however the model does


def pressure(loss_N: Values, classification_weight: float, selection_weight: float) -> Singles:
    """Push of each sample out of the mask, standardised over the data set, float32 (N,).

    g = a * loss - b * log(loss + 1e-5), the gradients of L_classification and L_selection on the soft mask: the first
    pushes hard samples out, the second easy ones.
    """
    loss_N = loss_N.astype(np.float32, copy=False)
    g_N = np.float32(classification_weight) * loss_N - np.float32(selection_weight) * np.log(loss_N + EPSILON)
    spread = g_N.std(dtype=np.float64).astype(np.float32)
    mean = g_N.mean(dtype=np.float64).astype(np.float32)
    return np.asarray((g_N - mean) / spread if spread > 0 else np.zeros_like(g_N))


class Pace:
    """The pruning performance controller (PPC): how far the walk from keeping all to keeping `keep` has come.

    The walk takes a fraction `ramp` of pruning. It waits, and takes a step back, while the validation loss is worse
    than the best so far by more than `tolerance`; a deadline sees to it that it arrives.
    """

    def __init__(self, ramp: float, tolerance: float) -> None:
        self.ramp, self.tolerance = ramp, tolerance
        self.position = 0.0  # 0 keeps all, 1 keeps `keep`
        self.done = 0.0
        self.best = float("inf")
        self.waits = 0

    def step(self, done: float, validation_loss: float | None) -> float:
        """Move on to `done` of the pruning phase and give the new position, in [0, 1]."""
        stride = (done - self.done) / self.ramp
        self.done = done
        worse = validation_loss is not None and validation_loss > self.best * (1 + self.tolerance)
        if validation_loss is not None:
            self.best = min(self.best, validation_loss)
        if worse and self.position < 1:
            self.waits += 1
            stride = -stride
        late = min(self.ramp, DEADLINE / 2)
        forced = min(1.0, max(0.0, (done - late) / (DEADLINE - late)))
        self.position = min(1.0, max(0.0, forced, self.position + stride))
        return self.position


class Adaptive(Method):
    """Mask logits follow the pressure (ADP); the kept fraction walks down as the model allows (PPC)."""

    summary = "a mask learned with the model: pressure from the loss, paced by a validation split"
    paper = "after AdaPruner, arXiv 2312.05599"
    needs = ("validation",)

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.pace = Pace(config.ramp, config.tolerance)
        self.logit_N: Singles | None = None

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Move the mask against the pressure, and project it to the kept fraction of the moment."""
        config, loss_N = self.config, samples.losses.difficulty()
        waits, eta = self.pace.waits, np.float32(config.rate)
        push_N = pressure(loss_N, config.classification_weight, config.selection_weight)
        self.logit_N = -eta * push_N if self.logit_N is None else (1 - eta) * self.logit_N - eta * push_N
        position = self.pace.step(progress.done, progress.validation_loss)
        if self.pace.waits > waits:
            log.info("pruning waits at epoch %d: validation loss %.3f", progress.epoch, progress.validation_loss)
        if self.pace.waits >= 3:
            self.alarm("over-pruning: the validation loss worsened while samples were dropped, and pruning had to wait")
        now = 1 - (1 - config.keep) * position
        active_N, _ = project(
            self.logit_N, round(now * len(samples)), samples.label_N, samples.key_N, floor=config.class_floor
        )
        scale = geometric(config.scale_start, config.scale_end, position)
        soft_N, _ = soft_mask(self.logit_N, scale, now * len(samples))
        weight_N = np.where(active_N, soft_N / soft_N[active_N].mean(), 0.0).astype(np.float32)
        return Selection(active_N, weight_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The mask at the full ratio, however far the walk has come."""
        assert self.logit_N is not None
        kept_N, floor_N = project(
            self.logit_N, self.count(samples), samples.label_N, samples.key_N, floor=self.config.class_floor
        )
        return Verdict(kept_N, self.logit_N, explain(kept_N, samples.losses.difficulty(), floor_N))

    def state_dict(self) -> State:
        """Mask logits and pace."""
        pace = {k: getattr(self.pace, k) for k in ("position", "done", "best", "waits")}
        return super().state_dict() | {"logit": self.logit_N, "pace": pace}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.logit_N = None if state["logit"] is None else as_array(state["logit"]).astype(np.float32)
        for name, value in state["pace"].items():
            setattr(self.pace, name, value)
