"""What was found out about a labelled data set: which labels are probably wrong, and how many."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from secateur.semantics.consistency import Floats, LabelModel, Labels, Singles


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
    """

    fits: bool
    reason: str
    zero_shot_agreement: float
    neighbour_agreement: float


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


def with_probability(
    findings: Findings,
    label_N: Labels,
    wrong_N: Floats,
    doubt_N: Floats,
    rate: Estimate,
    audited: int,
) -> Findings:
    """The findings with other probabilities of being wrong; those of the other classes keep their proportions.

    Suggestions follow `doubt_N`, in which judgements count as certain.
    """
    rows_N, posterior_NC = np.arange(len(label_N)), findings.posterior_NC.astype(np.float32)
    posterior_NC[rows_N, label_N] = 0
    total_N = posterior_NC.sum(axis=1)
    known_N = total_N > 0
    posterior_NC[known_N] *= (wrong_N[known_N] / total_N[known_N])[:, None]
    posterior_NC[~known_N] = (wrong_N[~known_N] / max(posterior_NC.shape[1] - 1, 1))[:, None]
    posterior_NC[rows_N, label_N] = 1 - wrong_N
    model = replace(
        findings.model,
        label_probability_N=1 - wrong_N,
        suggested_N=posterior_NC.argmax(axis=1).astype(np.int32),
        posterior_NC=posterior_NC.astype(np.float16),
    )
    return replace(
        findings,
        probability_wrong_N=wrong_N,
        suggested_N=suggestions(posterior_NC, label_N, doubt_N),
        posterior_NC=model.posterior_NC,
        margin_N=margins(posterior_NC, label_N),
        rate=rate,
        audited=audited,
        model=model,
    )


def margins(posterior_NC: Singles, label_N: Labels) -> Floats:
    """t[y] - max of t[c] over c other than y, in [-1, 1], float64 (N,)."""
    rows_N, other_NC = np.arange(len(label_N)), posterior_NC.astype(np.float32)
    own_N = other_NC[rows_N, label_N].astype(np.float64)
    other_NC[rows_N, label_N] = -np.inf
    return np.asarray(own_N - np.maximum(other_NC.max(axis=1), 0.0))


def suggestions(posterior_NC: Singles, label_N: Labels, wrong_N: Floats) -> Labels:
    """The likeliest class, int32 (N,); of the others alone where the given label is more probably wrong than right."""
    suggested_N: Labels = posterior_NC.argmax(axis=1).astype(np.int32)
    doubted = np.flatnonzero((wrong_N > 0.5) & (suggested_N == label_N))
    other_DC = posterior_NC[doubted]
    other_DC[np.arange(len(doubted)), label_N[doubted]] = -1
    suggested_N[doubted] = other_DC.argmax(axis=1)
    return suggested_N
