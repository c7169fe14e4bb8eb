"""What a linear probe says of a label that it did not learn from: multinomial logistic regression in folds."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from secateur.semantics.consistency import Floats, Labels, Singles
from secateur.streams import Keys, uniform

FOLDS = 5
PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)  # L2, for the mean loss; from strong to weak
ITERATIONS = 60
ROWS = 65_536  # looked at together, which bounds the memory


def draw_folds(key_N: Keys, group_N: npt.NDArray[np.integer], seed: int = 0) -> npt.NDArray[np.int64]:
    """A fold in [0, 5) for each sample, int64 (N,); copies, which share a group, are in one fold.

    Args:
        key_N: Of the samples.
        group_N: Position of the first copy of each sample; its own where there is none.
        seed: Of the draw.
    """
    return np.asarray(np.floor(uniform(key_N, "probe folds", seed)[group_N] * FOLDS), dtype=np.int64)


def probe_probability(
    embedding_ND: npt.NDArray[np.floating],
    label_N: Labels,
    fold_N: npt.NDArray[np.integer],
    classes: int,
) -> Singles:
    """Log-probability of every class under a probe that learned from the other folds, float32 (N, C).

    The L2 penalty is the one of least log-loss on the first fold; then each fold has a temperature of its own, which
    is fitted to its held-out labels. Where one fold lacks a class, its probability there is what the penalty leaves.

    Args:
        embedding_ND: Vectors; they are centred and scaled to unit mean square.
        label_N: Given labels, in [0, C).
        fold_N: Of each sample.
        classes: C.
    """
    input_ND = embedding_ND.astype(np.float32)
    input_ND -= input_ND.mean(axis=0)
    input_ND /= max(float(np.sqrt(np.mean(np.square(input_ND)))), 1e-12)
    log_p_NC = np.empty((len(label_N), classes), dtype=np.float32)
    penalties: Sequence[float] = PENALTIES
    for fold in np.unique(fold_N):
        out_N = fold_N == fold
        learned = (input_ND[~out_N], label_N[~out_N])
        found: list[tuple[float, float, Singles]] = []
        factor_EC = np.zeros((input_ND.shape[1] + 1, classes))
        for penalty in penalties:
            factor_EC = fit_probe(*learned, factor_EC, penalty)
            logit_RC = scores(input_ND[out_N], factor_EC)
            found.append((*fit_scale(logit_RC, label_N[out_N]), logit_RC))
            if len(found) > 1 and found[-1][0] > found[-2][0]:
                break
        best = min(range(len(found)), key=lambda place: found[place][0])
        _, scale, logit_RC = found[best]
        log_p_NC[out_N] = torch.log_softmax(torch.from_numpy(scale * logit_RC), dim=1).numpy()
        penalties = (penalties[best],)
    return log_p_NC


def scores(input_RD: Singles, factor_EC: Floats) -> Singles:
    """Logits of a probe; the last row of its factors is added to all."""
    factor_EC32 = factor_EC.astype(np.float32)
    return np.asarray(input_RD @ factor_EC32[:-1] + factor_EC32[-1])


def fit_probe(input_ND: Singles, label_N: Labels, start_EC: Floats, penalty: float) -> Floats:
    """Minimise mean cross-entropy + penalty / 2 * squared factors, by L-BFGS; float64 (D + 1, C)."""
    from scipy.optimize import minimize  # takes a second to import, and most steps do without

    inputs, given = torch.from_numpy(input_ND), torch.from_numpy(label_N.astype(np.int64))

    def loss(flat: Floats) -> tuple[float, Floats]:
        factor_EC = flat.reshape(start_EC.shape)
        factor = torch.from_numpy(factor_EC.astype(np.float32))
        value, slope_EC = 0.5 * penalty * float((factor_EC[:-1] ** 2).sum()), penalty * factor_EC
        slope_EC[-1] = 0
        for first in range(0, len(inputs), ROWS):
            place = slice(first, first + ROWS)
            log_p_RC = torch.log_softmax(torch.addmm(factor[-1], inputs[place], factor[:-1]), dim=1)
            rows = torch.arange(len(log_p_RC))
            value -= float(log_p_RC[rows, given[place]].sum()) / len(inputs)
            log_p_RC.exp_()
            log_p_RC[rows, given[place]] -= 1
            log_p_RC /= len(inputs)
            slope_EC[:-1] += (inputs[place].T @ log_p_RC).numpy()
            slope_EC[-1] += log_p_RC.sum(dim=0).numpy()
        return value, slope_EC.ravel()

    found = minimize(loss, start_EC.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return np.asarray(found.x.reshape(start_EC.shape))


def fit_scale(logit_RC: Singles, label_R: Labels) -> tuple[float, float]:
    """The log-loss at the factor of the logits in [0.05, 20] that makes it least, and that factor."""
    from scipy.optimize import minimize_scalar

    logits, given = torch.from_numpy(logit_RC), torch.from_numpy(label_R.astype(np.int64))

    def loss(log_scale: float) -> float:
        return float(torch.nn.functional.cross_entropy(float(np.exp(log_scale)) * logits, given))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-2})
    return float(found.fun), float(np.exp(found.x))
