"""What CLIP says of a label: how well it fits the picture, and how likely it is right."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

ROWS = 16_384  # looked at together, which bounds the memory
MAX_TEMPERATURE = 500.0
PRIOR = 100  # counts that are added to each row of the transitions, at most


@dataclass(frozen=True)
class LabelModel:
    """Semantic consistency of every sample, and the model of how labels go wrong that explains the given ones.

    Attributes:
        temperature: tau, the factor of the similarities in the softmax.
        transition_CC: T, probability of the given label (column) for the true class (row); rows sum to 1.
        consistency_N: q = log p[y], of the given label under CLIP alone, in (-inf, 0].
        label_probability_N: pi, probability in [0, 1] that the given label is right.
        suggested_N: The likeliest class, int32.
        posterior_NC: t, probability of every class given picture and label, float16.
        probability_NC: p, probability of every class by the picture alone, calibrated by the temperature, float16.
        zero_shot_agreement: Fraction of samples whose given label is CLIP's first choice.
        fits: Whether that is more than two independent labellings would agree, by five standard deviations.
    """

    temperature: float
    transition_CC: Floats
    consistency_N: Floats
    label_probability_N: Floats
    suggested_N: Labels
    posterior_NC: npt.NDArray[np.float16]
    probability_NC: npt.NDArray[np.float16]
    zero_shot_agreement: float
    fits: bool

    @property
    def expected_wrong(self) -> float:
        """Expected fraction of wrong labels; people's mistakes hide where CLIP is unsure, so it is a lower bound."""
        return float(1 - self.label_probability_N.mean())


def log_softmax(logit_NC: Floats) -> Floats:
    """Logarithm of the softmax over the last axis."""
    shifted_NC = logit_NC - logit_NC.max(axis=1, keepdims=True)
    return np.asarray(shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True)))


def class_posterior(log_p_NC: Floats, transition_CC: Floats, label_N: Labels) -> tuple[Floats, float]:
    """Probability of every class given picture and label, t ~ p * T[:, y], (N, C), and the mean log-likelihood."""
    joint_NC = log_p_NC + np.log(transition_CC[:, label_N].T)
    top_N = joint_NC.max(axis=1, keepdims=True)
    likelihood_N = np.exp(joint_NC - top_N).sum(axis=1, keepdims=True)
    posterior_NC = np.exp(joint_NC - top_N) / likelihood_N
    return posterior_NC, float((np.log(likelihood_N) + top_N).mean())


def smoothed_transitions(count_CC: Floats) -> Floats:
    """Transitions by counts of true class (row) and given label (column), float64 (C, C); rows sum to 1.

    To each row 100 counts are added, or as many as a class has on average where that is less: as right and as wrong as
    all rows together are. That number makes held-out labels of CIFAR-10N likeliest. With one in each cell instead,
    which says that nearly all labels of many small classes are wrong, twice as many right ones would be refused.
    """
    right = (np.trace(count_CC) + 1) / (count_CC.sum() + 2)
    smoothed_CC = count_CC + prior_counts(right, len(count_CC), count_CC.sum())
    return np.asarray(smoothed_CC / smoothed_CC.sum(axis=1, keepdims=True))


def prior_counts(right: float, classes: int, size: float) -> Floats:
    """What is added to the counts of `size` samples: a fraction `right` on the diagonal, the rest even; (C, C)."""
    count = min(PRIOR, size / classes)
    count_CC = np.full((classes, classes), count * (1 - right) / max(classes - 1, 1))
    np.fill_diagonal(count_CC, count * right)
    return count_CC


def describe(
    similarity_NC: npt.NDArray[np.floating], temperature: float, transition_CC: Floats, label_N: Labels
) -> LabelModel:
    """What a temperature and transitions say of every sample; no array of doubles is as long as the data."""
    size, classes = similarity_NC.shape
    consistency_N, right_N = np.empty(size), np.empty(size)
    likeliest_N, choice_N = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    posterior_NC, probability_NC = (np.empty((size, classes), dtype=np.float16) for _ in range(2))
    for start in range(0, size, ROWS):
        rows = slice(start, start + ROWS)
        log_p_RC, given_R = log_softmax(temperature * similarity_NC[rows].astype(np.float64)), label_N[rows]
        posterior_RC, _ = class_posterior(log_p_RC, transition_CC, given_R)
        place_R = np.arange(len(given_R))
        consistency_N[rows], right_N[rows] = log_p_RC[place_R, given_R], posterior_RC[place_R, given_R]
        likeliest_N[rows], choice_N[rows] = posterior_RC.argmax(axis=1), log_p_RC.argmax(axis=1)
        posterior_NC[rows], probability_NC[rows] = posterior_RC, np.exp(log_p_RC)
    return LabelModel(
        temperature=temperature,
        transition_CC=transition_CC,
        consistency_N=consistency_N,
        label_probability_N=right_N,
        suggested_N=likeliest_N,
        posterior_NC=posterior_NC,
        probability_NC=probability_NC,
        zero_shot_agreement=float((choice_N == label_N).mean()),
        fits=agrees(choice_N, label_N),
    )


def fit_temperature(similarity_NC: Floats, transition_CC: Floats, label_N: Labels) -> float:
    """The temperature factor in [1, 500] under which the given labels are likeliest."""
    from scipy.optimize import minimize_scalar  # takes a second to import, and most steps do without

    def loss(log_temperature: float) -> float:
        log_p_NC = log_softmax(np.exp(log_temperature) * similarity_NC)
        return -class_posterior(log_p_NC, transition_CC, label_N)[1]

    found = minimize_scalar(loss, bounds=(0.0, np.log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def agrees(choice_N: npt.NDArray[np.integer], label_N: Labels) -> bool:
    """Whether two labellings agree more than independent ones would, by five standard deviations."""
    size, classes = len(label_N), int(max(label_N.max(), choice_N.max())) + 1
    share_C, chosen_C = (np.bincount(one_N, minlength=classes) / size for one_N in (label_N, choice_N))
    chance = float(share_C @ chosen_C)
    return bool((choice_N == label_N).mean() > chance + 5 * np.sqrt(chance * (1 - chance) / size))
