"""The interface of a pruning method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses, State
from secateur.pruning.selection import Bools, Ints, Singles, Values
from secateur.semantics.consistency import LabelModel
from secateur.streams import Keys


class Reason(StrEnum):
    """Why a sample is in the kept set, or out of it."""

    KEPT = "kept"
    FLOOR = "floor"  # kept only because its class would have too few
    RELABELLED = "relabelled"  # kept, and trained towards the suggested label: the given one is probably wrong
    INCONSISTENT = "inconsistent"  # its label is probably wrong
    REDUNDANT = "redundant"  # easy: its loss is below the median
    HARD = "hard"  # its loss is above the median
    UNUSED = "unused"  # not drawn, where chance alone decides


Reasons = npt.NDArray[np.uint8]  # places in REASONS
REASONS = list(Reason)
CODE = {reason: np.uint8(place) for place, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Semantics:
    """What CLIP says of each training sample (see `secateur.semantics.consistency.LabelModel`)."""

    consistency_N: Values  # q, in (-inf, 0]
    label_probability_N: Values  # pi, in [0, 1]
    suggested_N: Ints  # likeliest class
    posterior_NC: npt.NDArray[np.float16] | None = None  # t, probability of every class given picture and label
    probability_NC: npt.NDArray[np.float16] | None = None  # p, that of every class by the picture alone, calibrated
    fits: bool = True  # whether it agrees with the labels more than chance would

    @classmethod
    def of(cls, model: LabelModel) -> "Semantics":
        """What methods are told of a label model."""
        return cls(
            model.consistency_N.astype(np.float32),
            model.label_probability_N.astype(np.float32),
            model.suggested_N.astype(np.int16 if model.posterior_NC.shape[1] <= 2**15 else np.int32),
            model.posterior_NC,
            model.probability_NC,
            model.fits,
        )


@dataclass(frozen=True)
class Samples:
    """All that a method may know of the samples. It never sees pixels, positions in a loader, or clean labels."""

    key_N: Keys
    label_N: Ints
    losses: SampleLosses
    semantics: Semantics | None = None
    scores: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)  # what a preliminary run found, by name

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
    """What to train on in the coming epoch.

    Attributes:
        active_N: Samples to visit, bool (N,).
        weight_N: Weights of their losses, float32 (N,); None for all 1.
        relabelled_N: Those to train towards the soft label of the semantics instead of the given one, bool (N,).
        phase: "prune" or "anneal", for the log.
    """

    active_N: Bools
    weight_N: Singles | None = None
    relabelled_N: Bools | None = None
    phase: str = "prune"


@dataclass(frozen=True)
class Verdict:
    """The mask as it would be published now.

    Attributes:
        kept_N: Samples in the pruned data set, bool (N,).
        score_N: The higher, the rather kept, float (N,); its scale is the method's own.
        reason_N: Place in `REASONS`, uint8 (N,).
    """

    kept_N: Bools
    score_N: Values
    reason_N: Reasons


class Method(ABC):
    """Chooses the samples of each epoch. A subclass keeps what it learns in `self`, and says so in its state."""

    summary: ClassVar[str]  # one line for people
    paper: ClassVar[str]  # where it comes from
    cost: ClassVar[str] = "none"  # what choosing costs beside training
    needs: ClassVar[tuple[str, ...]] = ()  # "semantics", "validation", or names of scores of a preliminary run
    settles: ClassVar[bool] = False  # whether it learns a mask, so that its choice should come to rest

    def __init__(self, config: PruneConfig) -> None:
        self.config = config
        self.alarms: list[str] = []  # what a person should know, for the report

    @abstractmethod
    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Choose, given the losses up to now. It is called once before each epoch after the warm-up."""

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The mask after the last selection: what that was, unless a method knows better."""
        kept_N = selection.active_N
        return Verdict(kept_N, kept_N.astype(np.float32), explain(kept_N, samples.losses.difficulty()))

    def step(self, index_B: npt.NDArray[np.int64], loss_B: Singles) -> Singles | None:
        """Weights of a batch's losses, float32 (B,), for methods that learn at every step; None for those of the epoch.

        Args:
            index_B: Positions of the samples.
            loss_B: Their plain losses.
        """
        return None

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


def explain(kept_N: Bools, loss_N: Values, floor_N: Bools | None = None, accepted_N: Bools | None = None) -> Reasons:
    """Name the reason of each sample, uint8 (N,): the gate's refusals are inconsistent, the rest goes by its loss."""
    easy_N = loss_N <= np.median(loss_N)
    reason_N = np.where(easy_N, CODE[Reason.REDUNDANT], CODE[Reason.HARD])
    if accepted_N is not None:
        reason_N[~accepted_N] = CODE[Reason.INCONSISTENT]
    reason_N[kept_N] = CODE[Reason.KEPT]
    if floor_N is not None:
        reason_N[floor_N] = CODE[Reason.FLOOR]
    return reason_N
