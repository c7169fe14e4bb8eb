"""What the neighbours say of a label, where there is no CLIP or the classes have no names.

Each sample is judged by the labels of the others, never by its own (leave-one-out), nor by those of its copies, which
may be wrong together.
"""

import numpy as np
import numpy.typing as npt
import torch

from secateur.errors import InputError
from secateur.semantics.consistency import Floats, LabelModel, describe, fit_temperature
from secateur.semantics.embeddings import unit

NEIGHBOURS = 50
COPY = 0.9999  # cosine above which two pictures are one
WIDTH = 0.05  # difference of cosines over which a vote falls to 1/e
SMOOTHING = 0.5  # votes that every class has to begin with
CHUNK = 512  # rows searched at a time


def nearest(
    embedding_ND: npt.NDArray[np.floating], neighbours: int = NEIGHBOURS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest other samples by cosine, without copies, by exact search.

    Args:
        embedding_ND: Vectors of any length.
        neighbours: K, how many.

    Returns:
        Their positions, int64 (N, K), and cosines, float32 (N, K), -inf where there are fewer than K.

    Raises:
        InputError: An embedding is zero or not finite, or there is only one.
    """
    length_N = np.linalg.norm(embedding_ND.astype(np.float64), axis=1)
    if len(embedding_ND) < 2 or not (np.isfinite(length_N) & (length_N > 0)).all():
        raise InputError(f"embeddings must be two or more finite vectors other than zero, got {len(embedding_ND)}")
    unit_ND = torch.from_numpy(unit(embedding_ND))
    size = len(unit_ND)
    count = min(neighbours, size - 1)
    position_NK, cosine_NK = torch.empty(size, count, dtype=torch.int64), torch.empty(size, count)
    for start in range(0, size, CHUNK):
        cosine_RN = unit_ND[start : start + CHUNK] @ unit_ND.T
        cosine_RN.masked_fill_(cosine_RN > COPY, -torch.inf)
        rows = torch.arange(len(cosine_RN))
        cosine_RN[rows, start + rows] = -torch.inf
        found = cosine_RN.topk(count, sorted=False)
        position_NK[start : start + CHUNK], cosine_NK[start : start + CHUNK] = found.indices, found.values
    return position_NK.numpy(), cosine_NK.numpy()


def neighbour_probability(
    embedding_ND: npt.NDArray[np.floating],
    label_N: npt.NDArray[np.integer],
    classes: int | None = None,
    neighbours: int = NEIGHBOURS,
) -> Floats:
    """Probability of every class by the labels of the K nearest, float64 (N, C); rows sum to 1.

    p_ic ~ 0.5 + sum over the neighbours j of class c of exp((cos_ij - cos_i) / 0.05), with cos_i that of the nearest,
    so that embeddings count alike whose cosines are all high, or all low.

    Args:
        embedding_ND: Vectors of any length.
        label_N: Given labels.
        classes: C; the highest label and one, by default.
        neighbours: K.
    """
    position_NK, cosine_NK = nearest(embedding_ND, neighbours)
    nearest_N = cosine_NK.max(axis=1, keepdims=True)
    weight_NK = np.exp((cosine_NK - np.where(np.isfinite(nearest_N), nearest_N, 0)) / WIDTH)
    size, classes = len(label_N), int(label_N.max()) + 1 if classes is None else classes
    cell_NK = np.arange(size)[:, None] * classes + label_N[position_NK]
    vote_NC = np.bincount(cell_NK.ravel(), weight_NK.ravel(), size * classes).reshape(size, classes) + SMOOTHING
    return np.asarray(vote_NC / vote_NC.sum(axis=1, keepdims=True))


def fit_neighbours(
    embedding_ND: npt.NDArray[np.floating], label_N: npt.NDArray[np.integer], classes: int | None = None
) -> LabelModel:
    """The label model of `fit_label_model` with neighbours in the place of CLIP.

    The labels of neighbours go wrong as the sample's own does, so the likelihood alone cannot tell noise from mixed
    neighbourhoods: EM would find every label right. Transitions are therefore counted (Northcutt et al., JAIR 2021):
    T[c, y] ~ 1 + the samples labelled y whose neighbours say c. The temperature is fitted under them. Where classes
    overlap, that counts some right labels as wrong.

    Args:
        embedding_ND: Vectors of any length, of a model that did not learn from these labels.
        label_N: Given labels.
        classes: C; the highest label and one, by default.

    Raises:
        InputError: An embedding is zero or not finite, or there is only one.
    """
    given_N: npt.NDArray[np.int32] = label_N.astype(np.int32)
    log_p_NC = np.log(neighbour_probability(embedding_ND, given_N, classes))
    count_CC = np.ones((log_p_NC.shape[1],) * 2)
    np.add.at(count_CC, (log_p_NC.argmax(axis=1), given_N), 1)
    transition_CC = count_CC / count_CC.sum(axis=1, keepdims=True)
    temperature = fit_temperature(log_p_NC, transition_CC, given_N)
    return describe(log_p_NC, temperature, transition_CC, given_N)
