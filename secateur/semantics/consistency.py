"""What CLIP says of a label: how well it fits the picture, and how likely it is right."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MAX_ROUNDS = 100
TOLERANCE = 1e-6
MAX_TEMPERATURE = 500.0


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
    suggested_N: npt.NDArray[np.int32]
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


def class_posterior(log_p_NC: Floats, transition_CC: Floats, label_N: npt.NDArray[np.int32]) -> tuple[Floats, float]:
    """Probability of every class given picture and label, t ~ p * T[:, y], (N, C), and the mean log-likelihood."""
    joint_NC = log_p_NC + np.log(transition_CC[:, label_N].T)
    top_N = joint_NC.max(axis=1, keepdims=True)
    likelihood_N = np.exp(joint_NC - top_N).sum(axis=1, keepdims=True)
    posterior_NC = np.exp(joint_NC - top_N) / likelihood_N
    return posterior_NC, float((np.log(likelihood_N) + top_N).mean())


def fit_label_model(similarity_NC: Floats, label_N: npt.NDArray[np.int32]) -> LabelModel:
    """Fit temperature and label transitions to the given labels, by EM.

    (tau, T) = argmax sum_i log sum_c softmax(tau * similarity)[i, c] * T[c, y_i], with a Dirichlet(1) over each row of
    T, of which the posterior mean is taken: one count is added to each entry. The score q is the semantic consistency
    of multimodal-guided dynamic pruning (arXiv 2507.12750); the transitions are those of confident learning (Northcutt
    et al., JAIR 2021), fitted instead of counted.

    Args:
        similarity_NC: Cosine similarity of image and class text, in [-1, 1].
        label_N: Given labels, in [0, C).
    """
    similarity_NC = np.asarray(similarity_NC, dtype=np.float64)
    classes = similarity_NC.shape[1]
    given_NC = np.eye(classes)[label_N]
    transition_CC = np.full((classes, classes), 0.1 / classes) + 0.9 * np.eye(classes)
    temperature, before = 1.0, -np.inf
    for _ in range(MAX_ROUNDS):
        temperature = fit_temperature(similarity_NC, transition_CC, label_N)
        posterior_NC, likelihood = class_posterior(log_softmax(temperature * similarity_NC), transition_CC, label_N)
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
        counts_CC = posterior_NC.T @ given_NC + 1
        transition_CC = counts_CC / counts_CC.sum(axis=1, keepdims=True)
    return describe(similarity_NC, temperature, transition_CC, label_N)


def describe(
    similarity_NC: Floats, temperature: float, transition_CC: Floats, label_N: npt.NDArray[np.int32]
) -> LabelModel:
    """What a temperature and transitions say of every sample."""
    rows_N = np.arange(len(label_N))
    log_p_NC = log_softmax(temperature * similarity_NC)
    posterior_NC, _ = class_posterior(log_p_NC, transition_CC, label_N)
    return LabelModel(
        temperature=temperature,
        transition_CC=transition_CC,
        consistency_N=log_p_NC[rows_N, label_N],
        label_probability_N=posterior_NC[rows_N, label_N],
        suggested_N=posterior_NC.argmax(axis=1).astype(np.int32),
        posterior_NC=posterior_NC.astype(np.float16),
        probability_NC=np.exp(log_p_NC).astype(np.float16),
        zero_shot_agreement=float((log_p_NC.argmax(axis=1) == label_N).mean()),
        fits=agrees(log_p_NC.argmax(axis=1), label_N),
    )


def fit_temperature(similarity_NC: Floats, transition_CC: Floats, label_N: npt.NDArray[np.int32]) -> float:
    """The temperature factor in [1, 500] under which the given labels are likeliest."""
    from scipy.optimize import minimize_scalar  # takes a second to import, and most steps do without

    def loss(log_temperature: float) -> float:
        log_p_NC = log_softmax(np.exp(log_temperature) * similarity_NC)
        return -class_posterior(log_p_NC, transition_CC, label_N)[1]

    found = minimize_scalar(loss, bounds=(0.0, np.log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def agrees(choice_N: npt.NDArray[np.integer], label_N: npt.NDArray[np.int32]) -> bool:
    """Whether two labellings agree more than independent ones would, by five standard deviations."""
    size, classes = len(label_N), int(max(label_N.max(), choice_N.max())) + 1
    share_C, chosen_C = (np.bincount(one_N, minlength=classes) / size for one_N in (label_N, choice_N))
    chance = float(share_C @ chosen_C)
    return bool((choice_N == label_N).mean() > chance + 5 * np.sqrt(chance * (1 - chance) / size))
