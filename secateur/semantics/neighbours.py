"""What the neighbours say of a label, where there is no CLIP or the classes have no names.

Each sample is judged by the labels of the others, never by its own (leave-one-out), nor by those of its copies, which
may be wrong together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError
from secateur.semantics.consistency import (
    ROWS,
    Floats,
    LabelModel,
    Singles,
    describe,
    fit_temperature,
    smoothed_transitions,
)
from secateur.semantics.embeddings import unit

NEIGHBOURS = 50
SPARE = 14  # searched beside them, to take the places of copies
COPY = 1e-4  # cosine distance up to which two pictures are always one
NEAR = 0.3  # share of the usual distance to the near pictures, below which two pictures are one
USUAL = 10  # which of the near pictures tells the usual distance
WIDTH = 0.05  # difference of cosines over which a vote falls to 1/e
SMOOTHING = 0.5  # votes that every class has to begin with
CHUNK = 512  # rows searched at a time

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """The nearest other pictures of each picture.

    Attributes:
        position_NK: Which, int64 (N, K), nearest first.
        cosine_NK: Their cosines, float32 (N, K).
    """

    position_NK: Ints
    cosine_NK: npt.NDArray[np.float32]


def search(embedding_ND: npt.NDArray[np.floating], count: int = NEIGHBOURS + SPARE) -> Near:
    """Find the nearest others by cosine, exactly, block by block; on a GPU where there is one.

    Args:
        embedding_ND: Vectors of any length.
        count: K, how many; all others where there are fewer.

    Raises:
        InputError: An embedding is zero or not finite, or there is only one.
    """
    import torch  # takes seconds to import, and what only reads findings does without

    length_N = np.linalg.norm(embedding_ND.astype(np.float64), axis=1)
    if len(embedding_ND) < 2 or not (np.isfinite(length_N) & (length_N > 0)).all():
        raise InputError(f"embeddings must be two or more finite vectors other than zero, got {len(embedding_ND)}")
    unit_ND = torch.from_numpy(unit(embedding_ND)).to("cuda" if torch.cuda.is_available() else "cpu")
    size = len(unit_ND)
    count = min(count, size - 1)
    near = Near(np.empty((size, count), dtype=np.int64), np.empty((size, count), dtype=np.float32))
    for start in range(0, size, CHUNK):
        cosine_RN = unit_ND[start : start + CHUNK] @ unit_ND.T
        rows = torch.arange(len(cosine_RN), device=cosine_RN.device)
        cosine_RN[rows, start + rows] = -torch.inf
        found = cosine_RN.topk(count)
        near.position_NK[start : start + CHUNK] = found.indices.cpu().numpy()
        near.cosine_NK[start : start + CHUNK] = found.values.cpu().numpy()
    return near


def copies(near: Near, threshold: float = NEAR) -> Ints:
    """Position of the first of the pictures that are one with each, int64 (N,); its own where there is no copy.

    Two pictures are one if their distance is at most `threshold` times the distance of both to their tenth nearest: a
    CLIP puts all pictures of a class close together, and copies much closer. Where everything around is a copy, a
    tenth of the median distance takes its place.

    Args:
        near: The nearest ten or more of each picture.
        threshold: Share in [0, 1].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    distance_NK = 1 - near.cosine_NK
    reached = distance_NK.shape[1] >= USUAL
    usual_N = distance_NK[:, USUAL - 1] if reached else np.zeros(len(distance_NK), dtype=np.float32)
    usual_N = np.maximum(usual_N, np.median(usual_N) / 10)
    limit_NK = threshold * np.minimum(usual_N[:, None], usual_N[near.position_NK])
    row, column = np.nonzero(distance_NK <= np.maximum(limit_NK, COPY))
    size = len(distance_NK)
    pairs = coo_array((np.ones(len(row), dtype=np.int8), (row, near.position_NK[row, column])), shape=(size, size))
    _, group_N = connected_components(pairs, directed=False)
    _, first_G = np.unique(group_N, return_index=True)
    return np.asarray(first_G[group_N], dtype=np.int64)


def without_copies(near: Near, group_N: Ints, neighbours: int = NEIGHBOURS) -> Near:
    """The nearest that are no copies; cosine -inf at the end of rows where fewer than K are left."""
    cosine_NK = np.where(group_N[near.position_NK] == group_N[:, None], -np.inf, near.cosine_NK).astype(np.float32)
    order_NK = np.argsort(-cosine_NK, axis=1, kind="stable")[:, :neighbours]
    return Near(np.take_along_axis(near.position_NK, order_NK, 1), np.take_along_axis(cosine_NK, order_NK, 1))


def neighbour_probability(
    near: Near,
    label_N: npt.NDArray[np.integer],
    classes: int,
    weight_N: npt.NDArray[np.floating] | None = None,
    width: float = WIDTH,
) -> Singles:
    """Probability of every class by the labels of the nearest, float32 (N, C); rows sum to 1.

    p_ic ~ 0.5 + sum over the neighbours j of class c of w_j * exp((cos_ij - cos_i) / width), with cos_i that of the
    nearest, so that embeddings count alike whose cosines are all high, or all low.

    Args:
        near: The nearest of each sample, without copies.
        label_N: Given labels.
        classes: C.
        weight_N: How much each sample's vote counts, in [0, 1]; None for all alike.
        width: Difference of cosines over which a vote falls to 1/e.
    """
    nearest_N = near.cosine_NK.max(axis=1, keepdims=True)
    vote_NK = np.exp((near.cosine_NK - np.where(np.isfinite(nearest_N), nearest_N, 0)) / width)
    if weight_N is not None:
        vote_NK = vote_NK * weight_N[near.position_NK]
    p_NC = np.empty((len(label_N), classes), dtype=np.float32)
    for start in range(0, len(label_N), ROWS):  # votes are counted in doubles, of which N * C would be too many
        rows = slice(start, start + ROWS)
        label_RK = label_N[near.position_NK[rows]]
        cell_RK = np.arange(len(label_RK))[:, None] * classes + label_RK
        vote_RC = np.bincount(cell_RK.ravel(), vote_NK[rows].ravel(), len(label_RK) * classes).reshape(-1, classes)
        p_NC[rows] = (vote_RC + SMOOTHING) / (vote_RC.sum(axis=1, keepdims=True) + classes * SMOOTHING)
    return p_NC


def fit_neighbours(
    embedding_ND: npt.NDArray[np.floating], label_N: npt.NDArray[np.integer], classes: int | None = None
) -> LabelModel:
    """The label model of `fit_label_model` with neighbours in the place of CLIP.

    The labels of neighbours go wrong as the sample's own does, so the likelihood alone cannot tell noise from mixed
    neighbourhoods: the likeliest transitions would make every label right. Transitions are therefore counted (Northcutt
    et al., JAIR 2021): by the samples labelled y whose neighbours say c. The temperature is fitted under them. Where
    classes overlap, that counts some right labels as wrong.

    Args:
        embedding_ND: Vectors of any length, of a model that did not learn from these labels.
        label_N: Given labels.
        classes: C; the highest label and one, by default.

    Raises:
        InputError: An embedding is zero or not finite, or there is only one.
    """
    given_N: npt.NDArray[np.int32] = label_N.astype(np.int32)
    near = search(embedding_ND)
    classes = int(given_N.max()) + 1 if classes is None else classes
    log_p_NC = np.log(neighbour_probability(without_copies(near, copies(near)), given_N, classes))
    transition_CC = counted_transitions(log_p_NC, given_N)
    temperature = fit_temperature(log_p_NC, transition_CC, given_N)
    return describe(log_p_NC, temperature, transition_CC, given_N)


def counted_transitions(log_p_NC: npt.NDArray[np.floating], label_N: npt.NDArray[np.int32]) -> Floats:
    """Transitions by the first choices: the samples labelled y (column) whose likeliest class is c (row), smoothed."""
    count_CC = np.zeros((log_p_NC.shape[1],) * 2)
    np.add.at(count_CC, (log_p_NC.argmax(axis=1), label_N), 1)
    return smoothed_transitions(count_CC)


def class_diversity(
    embedding_ND: npt.NDArray[np.floating], label_N: npt.NDArray[np.integer], neighbours: int = USUAL
) -> npt.NDArray[np.float32]:
    """Mean cosine distance to the nearest samples of the same class, copies included, float32 (N,).

    It is 1 for a sample that is alone in its class.
    """
    diversity_N = np.ones(len(label_N), dtype=np.float32)
    for label in np.unique(label_N):
        member = np.flatnonzero(label_N == label)
        if len(member) > 1:
            diversity_N[member] = 1 - search(embedding_ND[member], neighbours).cosine_NK.mean(axis=1)
    return diversity_N
