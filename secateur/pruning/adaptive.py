"""AdaPruner (arXiv 2312.05599) with its three forces made well-posed: a mask learned with the model.

The mask moves by adaptive dataset pruning (ADP), the functions of this module; `secateur.pruning.pace` has its pace.
"""

import logging

import numpy as np

from secateur.pruning.alarms import STRIDE, indifferent, out_of_balance
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict, explain
from secateur.pruning.pace import Pace
from secateur.pruning.selection import Bools, Singles, Values, geometric, project, soft_mask

log = logging.getLogger(__name__)

EPSILON = 1e-5
MANY_WAITS = 3  # of the walk, after which a person should know


def pressure(loss_N: Values, classification_weight: float, selection_weight: float) -> Singles:
    """Push of each sample out of the mask, standardised over the data set, float32 (N,).

    g = a * loss - b * log(loss + 1e-5), the gradients of L_classification and L_selection on the soft mask: the first
    pushes hard samples out, the second easy ones. A weight of 0 takes a force out; without both the push is 0.

    Args:
        loss_N: Moving averages of the plain losses, float (N,), at least 0.
        classification_weight: a, at least 0.
        selection_weight: b, at least 0.
    """
    loss_N = loss_N.astype(np.float32, copy=False)
    g_N = np.float32(classification_weight) * loss_N - np.float32(selection_weight) * np.log(loss_N + EPSILON)
    spread = g_N.std(dtype=np.float64).astype(np.float32)
    mean = g_N.mean(dtype=np.float64).astype(np.float32)
    return np.asarray((g_N - mean) / spread if spread > 0 else np.zeros_like(g_N))


def descend(logit_N: Singles | None, push_N: Singles, rate: float) -> Singles:
    """One step of the mask logits, m <- (1 - eta) m - eta g, float32 (N,); from 0 where there are none yet."""
    eta = np.float32(rate)
    return -eta * push_N if logit_N is None else (1 - eta) * logit_N - eta * push_N


def weights(soft_N: Values, active_N: Bools) -> Singles:
    """Weights of the model's losses, s over its mean among the active samples, 0 for the others, float32 (N,).

    Their mean loss is then sum(s * loss) / sum(s), so that a mask far from 1 does not weaken the loss against the
    weight decay.
    """
    weight_N = soft_N.astype(np.float32)
    weight_N *= active_N
    weight_N *= np.float32(np.count_nonzero(active_N) / weight_N.sum(dtype=np.float64))
    return weight_N


class Adaptive(Method):
    """Mask logits follow the pressure (ADP); the kept fraction walks down as the model allows (PPC)."""

    summary = "a mask learned with the model: pressure from the loss, paced by a validation split"
    paper = "after AdaPruner, arXiv 2312.05599"
    needs = ("validation",)
    settles = True

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.pace = Pace(config.ramp, config.tolerance)
        self.logit_N: Singles | None = None

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Move the mask against the pressure, and project it to the kept fraction of the moment."""
        config, loss_N = self.config, samples.losses.difficulty()
        push_N = pressure(loss_N, config.classification_weight, config.selection_weight)
        self.logit_N = descend(self.logit_N, push_N, config.rate)
        position = self.walk(progress)
        now = 1 - (1 - config.keep) * position
        active_N, _ = self.kept(samples, now)
        scale = geometric(config.scale_start, config.scale_end, position)
        soft_N, _ = soft_mask(self.logit_N, scale, now * len(samples))
        self.watch(loss_N, scale, now)
        return Selection(active_N, weights(soft_N, active_N))

    def walk(self, progress: Progress) -> float:
        """Let the pace decide how far pruning has come, and log where it waits."""
        loss, waits = progress.validation_loss, self.pace.waits
        if loss is None and self.pace.tolerance < float("inf"):
            self.alarm("blind pace: there is no validation loss, so pruning goes on however the model does")
        position = self.pace.step(progress.done, loss)
        if self.pace.waits > waits:
            log.info("pruning waits at epoch %d: validation loss %.3f", progress.epoch, loss)
        if self.pace.waits >= MANY_WAITS:
            self.alarm("over-pruning: the validation loss worsened while samples were dropped, and pruning had to wait")
        return position

    def kept(self, samples: Samples, fraction: float) -> tuple[Bools, Bools]:
        """Exactly that fraction of the samples, the floor of every class first; and those that only the floor keeps."""
        assert self.logit_N is not None
        count = max(1, round(fraction * len(samples)))
        return project(self.logit_N, count, samples.label_N, samples.key_N, floor=self.config.class_floor)

    def watch(self, loss_N: Values, scale: float, now: float) -> None:
        """Raise the alarms on the mask: forces of very different size, or a mask that tells nothing apart."""
        config, part = self.config, loss_N[::STRIDE]
        if out_of_balance(config.classification_weight * part, config.selection_weight * np.log(part + EPSILON)):
            self.alarm("forces out of balance: classification_weight and selection_weight differ twentyfold in effect")
        assert self.logit_N is not None
        if self.pace.position == 1 and now < 1 and indifferent(self.logit_N, scale, now):
            self.alarm("the mask does not discriminate: its logits are so alike that the kept set is all but chance")

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The mask at the full ratio, however far the walk has come."""
        assert self.logit_N is not None
        kept_N, floor_N = self.kept(samples, self.config.keep)
        return Verdict(kept_N, self.logit_N, explain(kept_N, samples.losses.difficulty(), floor_N))

    def state_dict(self) -> State:
        """Mask logits and pace."""
        return super().state_dict() | {"logit": self.logit_N, "pace": self.pace.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.logit_N = None if state["logit"] is None else as_array(state["logit"]).astype(np.float32)
        self.pace.load_state_dict(state["pace"])
