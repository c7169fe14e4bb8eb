"""Which class a picture shows, by one channel or several, and how labels go wrong: both fitted to the given labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from secateur.semantics.consistency import (
    MAX_TEMPERATURE,
    ROWS,
    Floats,
    LabelModel,
    Labels,
    Singles,
    agrees,
    describe,
    prior_counts,
)

ITERATIONS = 300
RIGHT = 0.9  # fraction of right labels to begin with
ROUNDS = 4  # of fitting the prior's mean
SETTLED = 0.005  # change of that fraction that is none

Logits = Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Mixture:
    """The true class by the channels, and the given label by the transitions.

    Attributes:
        logits: Parameters and rows of every channel to logits (R, C).
        parameter: Of the logits, float64.
        transition_CC: T, probability of the given label (column) for the true class (row); rows sum to 1.
    """

    logits: Logits
    parameter: Floats
    transition_CC: Floats

    def log_probability(self, channels: Sequence[Singles]) -> Singles:
        """Log-probability of every class by the channels alone, float32 (N, C)."""
        parameter = torch.from_numpy(self.parameter.astype(np.float32))
        parts = [torch.log_softmax(self.logits(parameter, rows), dim=1) for rows, _ in blocks(channels)]
        return torch.cat(parts).numpy()

    def posterior(self, channels: Sequence[Singles], label_N: Labels) -> Singles:
        """Probability of every class given channels and label, t ~ p * T[:, y], float32 (N, C)."""
        joint_NC = self.joint(channels, label_N)
        joint_NC /= joint_NC.sum(axis=1, keepdims=True)
        return joint_NC

    def joint(self, channels: Sequence[Singles], label_N: Labels) -> Singles:
        """Probability of every class together with the given label, float32 (N, C)."""
        joint_NC = np.exp(self.log_probability(channels))
        joint_NC *= self.transition_CC.T.astype(np.float32)[label_N]
        return joint_NC


def fit_label_model(similarity_NC: npt.NDArray[np.floating], label_N: Labels) -> LabelModel:
    """Fit temperature and label transitions to the given labels.

    (tau, T) = argmax sum_i log sum_c softmax(tau * similarity)[i, c] * T[c, y_i] + log prior(T), see `fit_mixture`. The
    score q is the semantic consistency of multimodal-guided dynamic pruning (arXiv 2507.12750); the transitions are
    those of confident learning (Northcutt et al., JAIR 2021), fitted instead of counted. Similarities that agree with
    the labels no more than chance does say nothing of them: all are believed.

    Args:
        similarity_NC: Cosine similarity of image and class text, in [-1, 1].
        label_N: Given labels, in [0, C).
    """
    given_N = np.asarray(label_N, dtype=np.int32)
    if not agrees(similarity_NC.argmax(axis=1), given_N):
        even_CC = prior_counts(RIGHT, similarity_NC.shape[1], len(given_N))
        return describe(similarity_NC, 1.0, even_CC / even_CC.sum(axis=1, keepdims=True), given_N)
    spread = float(np.std(similarity_NC)) or 1.0
    channel_NC = (similarity_NC / spread).astype(np.float32)
    limits = (spread, MAX_TEMPERATURE * spread)
    mixture = fit_mixture([channel_NC], given_N, tempered, np.clip([1.0], *limits), limits)
    return describe(similarity_NC, float(mixture.parameter[0]) / spread, mixture.transition_CC, given_N)


def tempered(parameter: torch.Tensor, channels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits of similarities, with one factor for all."""
    return parameter[0] * channels[0]


def fit_mixture(
    channels: Sequence[Singles],
    label_N: Labels,
    logits: Logits,
    start: Floats,
    bounds: tuple[float | None, float | None] = (None, None),
    right: float | None = None,
) -> Mixture:
    """Find parameters and transitions under which the given labels are likeliest.

    (theta, T) = argmax sum_i log sum_c softmax(logits(theta, channels_i))[c] * T[c, y_i] + log prior(T), with the prior
    of `secateur.semantics.consistency.smoothed_transitions`. It is the maximum that EM climbs to; L-BFGS over both at
    once gets there in fewer passes.

    Args:
        channels: Arrays float32 (N, C).
        label_N: Given labels, in [0, C).
        logits: See `Mixture`.
        start: Parameters to begin with.
        bounds: Between which every parameter stays; None for no bound.
        right: Fraction of right labels in the prior's mean; None to fit it too.
    """
    size, classes = channels[0].shape
    believed = RIGHT if right is None else (size * right + 1) / (size + 2)
    theta = np.concatenate([start, np.log(prior_counts(believed, classes, size)).ravel()])
    for _ in range(ROUNDS):
        theta = climb(channels, label_N, logits, theta, [bounds] * len(start), prior_counts(believed, classes, size))
        odds_CC = np.exp(theta[len(start) :].reshape(classes, classes))
        mixture = Mixture(logits, theta[: len(start)], odds_CC / odds_CC.sum(axis=1, keepdims=True))
        if right is not None:
            break
        held_N = mixture.posterior(channels, label_N)[np.arange(size), label_N]
        before, believed = believed, (float(held_N.sum()) + 1) / (size + 2)
        if abs(believed - before) < SETTLED:
            break
    return mixture


def climb(
    channels: Sequence[Singles],
    label_N: Labels,
    logits: Logits,
    theta: Floats,
    bounds: Sequence[tuple[float | None, float | None]],
    prior_CC: Floats,
) -> Floats:
    """Maximise over parameters and log-odds of the transitions, which follow them in `theta`; see `fit_mixture`."""
    from scipy.optimize import minimize  # takes a second to import, and most steps do without

    parameters, classes, size = len(bounds), len(prior_CC), len(label_N)
    given, prior = torch.from_numpy(label_N.astype(np.int64)), torch.from_numpy(prior_CC)

    def loss(theta: Floats) -> tuple[float, Floats]:
        leaf = torch.from_numpy(theta).requires_grad_()
        parameter = leaf[:parameters].float()
        log_t_CC = torch.log_softmax(leaf[parameters:].reshape(classes, classes), dim=1)
        value = -(prior * log_t_CC).sum() / size
        value.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        total = value.item()
        for rows, place in blocks(channels):
            log_p_RC = torch.log_softmax(logits(parameter, rows), dim=1)
            joint_RC = log_p_RC + log_t_CC.float().T[given[place]]
            value = -torch.logsumexp(joint_RC, dim=1).sum() / size
            value.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            total += value.item()
        assert leaf.grad is not None
        return total, leaf.grad.numpy()

    limits = [*bounds, *[(None, None)] * classes**2]
    found = minimize(loss, theta, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": ITERATIONS})
    return np.asarray(found.x)


def blocks(channels: Sequence[Singles]) -> list[tuple[list[torch.Tensor], slice]]:
    """The channels' rows, block by block, with their place."""
    places = [slice(start, start + ROWS) for start in range(0, len(channels[0]), ROWS)]
    return [([torch.from_numpy(channel[place]) for channel in channels], place) for place in places]
