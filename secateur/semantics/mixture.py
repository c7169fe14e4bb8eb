"""Which class a picture shows, by one channel or several, and how labels go wrong: both fitted to the given labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from secateur.semantics.consistency import Floats

ROWS = 16_384  # looked at together, which bounds the memory
ITERATIONS = 300
RIGHT = 0.9  # share of right labels to begin with

Singles = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
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

    def likelihood(self, channels: Sequence[Singles], label_N: Labels) -> float:
        """Mean log-likelihood of given labels."""
        return float(np.log(self.joint(channels, label_N).sum(axis=1)).mean())

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


def fit_mixture(
    channels: Sequence[Singles], label_N: Labels, logits: Logits, start: Floats, low: float | None = None
) -> Mixture:
    """Find parameters and transitions under which the given labels are likeliest.

    (theta, T) = argmax sum_i log sum_c softmax(logits(theta, channels_i))[c] * T[c, y_i], with one count added to each
    entry of T. It is the maximum that EM climbs to; L-BFGS over both at once gets there in fewer passes.

    Args:
        channels: Arrays float32 (N, C).
        label_N: Given labels, in [0, C).
        logits: See `Mixture`.
        start: Parameters to begin with.
        low: What no parameter may fall below; None for no bound.
    """
    from scipy.optimize import minimize  # takes a second to import, and most steps do without

    classes, size = channels[0].shape[1], len(label_N)
    given = torch.from_numpy(label_N.astype(np.int64))
    first_CC = np.log(RIGHT * np.eye(classes) + (1 - RIGHT) / classes)

    def loss(theta: Floats) -> tuple[float, Floats]:
        leaf = torch.from_numpy(theta).requires_grad_()
        parameter = leaf[: len(start)].float()
        log_t_CC = torch.log_softmax(leaf[len(start) :].reshape(classes, classes), dim=1)
        value = -log_t_CC.sum() / size
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

    bounds = [(low, None)] * len(start) + [(None, None)] * classes**2
    theta = np.concatenate([start, first_CC.ravel()])
    found = minimize(loss, theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
    odds_CC = np.exp(found.x[len(start) :].reshape(classes, classes))
    return Mixture(logits, found.x[: len(start)], odds_CC / odds_CC.sum(axis=1, keepdims=True))


def blocks(channels: Sequence[Singles]) -> list[tuple[list[torch.Tensor], slice]]:
    """The channels' rows, block by block, with their place."""
    places = [slice(start, start + ROWS) for start in range(0, len(channels[0]), ROWS)]
    return [([torch.from_numpy(channel[place]) for channel in channels], place) for place in places]
