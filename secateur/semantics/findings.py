"""What was found out about a labelled data set: which labels are probably wrong, and how many."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secateur.semantics.consistency import Floats, LabelModel


@dataclass(frozen=True)
class Estimate:
    """A fraction in [0, 1], and the interval in which it probably lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClipFit:
    """Whether a CLIP fits a data set.

    Attributes:
        fits: Whether its texts may be relied on.
        reason: Why, in one sentence with the figures.
        zero_shot_agreement: Fraction of samples whose given label is CLIP's first choice.
        neighbour_agreement: Fraction whose given label is the first choice of the nearest other samples.
        histogram: Of q, the log-probability of the given label under CLIP: (low, high, count) of each bin.
    """

    fits: bool
    reason: str
    zero_shot_agreement: float
    neighbour_agreement: float
    histogram: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Findings:
    """What the signals say of N samples, in the order in which they were given.

    Attributes:
        probability_wrong_N: Probability in [0, 1] that the given label is wrong, 1 - t[y], float64.
        suggested_N: The likeliest class, int32; not the given one where that is more probably wrong than right, or
            was found wrong by a person.
        posterior_NC: t, probability of every class given all signals and the label, float16.
        margin_N: t[y] - max of t[c] over c other than y, in [-1, 1], float64.
        signal: Log-probability of the given label under each channel, float64 (N,): "clip", "neighbours", "probe".
        weight: Exponent of each channel in the combination, 0 or more; 0 for one that is not used.
        rate: Fraction of wrong labels; without an audit it is a lower bound.
        audited: How many samples a person judged to calibrate probabilities and rate; 0: none.
        clip_fit: Whether CLIP fits; None where no texts were given.
        diversity_N: Mean cosine distance to the nearest samples of the same class, in [0, 2], float32.
        model: The label model behind it, for the pruning methods.
    """

    probability_wrong_N: Floats
    suggested_N: npt.NDArray[np.int32]
    posterior_NC: npt.NDArray[np.float16]
    margin_N: Floats
    signal: dict[str, Floats]
    weight: dict[str, float]
    rate: Estimate
    audited: int
    clip_fit: ClipFit | None
    diversity_N: npt.NDArray[np.float32]
    model: LabelModel

    def label_model(self) -> LabelModel:
        """The label model behind the findings, for the pruning methods."""
        return self.model
