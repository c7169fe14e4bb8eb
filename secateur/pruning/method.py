"""The interface of a pruning method."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses, State
from secateur.pruning.selection import Bools, Floats, Ints
from secateur.streams import Keys


class Reason(StrEnum):
    """Why a sample is in the kept set, or out of it."""

    KEPT = "kept"
    FLOOR = "floor"  # kept only because its class would have too few
    INCONSISTENT = "inconsistent"  # its label is probably wrong
    REDUNDANT = "redundant"  # easy: its loss is below the median
    HARD = "hard"  # its loss is above the median
    UNUSED = "unused"  # not drawn, where chance alone decides


@dataclass(frozen=True)
class Semantics:
    """What CLIP says of each training sample (see `secateur.semantics.consistency.LabelModel`)."""

    consistency_N: Floats  # q, in (-inf, 0]
    label_probability_N: Floats  # pi, in [0, 1]
    suggested_N: Ints  # likeliest class


@dataclass(frozen=True)
class Samples:
    """All that a method may know of the samples. It never sees pixels, positions in a loader, or clean labels."""

    key_N: Keys
    label_N: Ints
    losses: SampleLosses
    semantics: Semantics | None = None

    def __len__(self) -> int:
        return len(self.key_N)


@dataclass(frozen=True)
class Progress:
    """Where the run is when a method is asked."""

    epoch: int  # epochs since training began, warm-up included
    done: float  # fraction of the pruning phase that is over, in [0, 1)
    seed: int
    validation_loss: float | None = None  # of the epoch before, on the split held out from training


@dataclass(frozen=True)
class Selection:
    """A method's answer.

    Attributes:
        active_N: Samples to train on in the coming epoch, bool (N,).
        kept_N: The mask as it would be published now, bool (N,).
        score_N: The higher, the rather kept, float64 (N,).
        reason_N: A `Reason` of each sample for `kept_N`, object (N,).
        weight_N: Weights of the losses with mean 1 over the active samples, float32 (N,); None for all 1.
        phase: "prune" or "anneal", for the log.
    """

    active_N: Bools
    kept_N: Bools
    score_N: Floats
    reason_N: npt.NDArray[np.object_]
    weight_N: npt.NDArray[np.float32] | None = None
    phase: str = "prune"


class Method(ABC):
    """Chooses the samples of each epoch. A subclass keeps what it learns in `self`, and says so in its state."""

    summary: ClassVar[str]  # one line for people
    paper: ClassVar[str]  # where it comes from
    needs: ClassVar[tuple[str, ...]] = ()  # "semantics", "validation"

    def __init__(self, config: PruneConfig) -> None:
        self.config = config
        self.alarms: list[str] = []  # what a person should know, for the report

    @abstractmethod
    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Choose, given the losses up to now. It is called once before each epoch after the warm-up."""

    def count(self, samples: Samples) -> int:
        """Number of samples to keep."""
        return max(1, round(self.config.keep * len(samples)))

    def alarm(self, text: str) -> None:
        """Say something once."""
        if text not in self.alarms:
            self.alarms.append(text)

    def state_dict(self) -> State:
        """What the method has learned, as arrays, numbers and texts."""
        return {"alarms": list(self.alarms)}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        self.alarms = list(state["alarms"])


def explain(kept_N: Bools, floor_N: Bools, loss_N: Floats, accepted_N: Bools | None = None) -> npt.NDArray[np.object_]:
    """Name the reason of each sample, object (N,): the gate's refusals are inconsistent, the rest goes by its loss."""
    reason_N = np.where(loss_N <= np.median(loss_N), Reason.REDUNDANT.value, Reason.HARD.value).astype(object)
    if accepted_N is not None:
        reason_N[~accepted_N] = Reason.INCONSISTENT.value
    reason_N[kept_N] = Reason.KEPT.value
    reason_N[floor_N] = Reason.FLOOR.value
    return reason_N
