"""Pictures that are one: byte for byte, or nearly, by their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secateur.errors import require_range
from secateur.semantics.neighbours import NEAR, USUAL, Near, copies, search


@dataclass(frozen=True)
class Duplicates:
    """Groups of pictures that are one.

    Attributes:
        groups: Positions of two or more pictures each, sorted.
        exact_N: Whether a picture has a byte-identical copy, bool.
        leaks: Positions of training pictures that share a group with a test picture, sorted.
    """

    groups: tuple[tuple[int, ...], ...]
    exact_N: npt.NDArray[np.bool_]
    leaks: tuple[int, ...]


def find_duplicates(
    sample_ids: Sequence[str] | npt.NDArray[np.object_],
    embedding_ND: npt.NDArray[np.floating],
    split_N: npt.NDArray[np.object_],
    threshold: float = NEAR,
    near: Near | None = None,
) -> Duplicates:
    """Group exact copies by their ids, then near copies by their embeddings, and find leaks between train and test.

    Args:
        sample_ids: The hash of the picture's bytes, with a counter for exact copies: "ab12", "ab12-1", ...
        embedding_ND: Vectors of any length.
        split_N: "train", "test" or another name for each.
        threshold: Two pictures are one below this share of their usual distance to near ones; see `copies`. 0 finds
            those alone whose embeddings are the same.
        near: What `search` found for these embeddings; searched for anew by default.

    Raises:
        InputError: A threshold outside [0, 1], or an embedding that is zero or not finite.
    """
    require_range("threshold", threshold, 0, 1)
    stems = [str(sample_id).partition("-")[0] for sample_id in sample_ids]
    _, stem_N, count_S = np.unique(stems, return_inverse=True, return_counts=True)
    near_N = copies(near or search(embedding_ND, USUAL + 1), threshold) if len(stems) > 1 else np.zeros(1, np.int64)
    group_N = merged(stem_N, near_N)
    order = np.argsort(group_N, kind="stable")
    ends = np.flatnonzero(np.diff(group_N[order])) + 1
    groups = tuple(tuple(int(i) for i in part) for part in np.split(order, ends) if len(part) > 1)
    test_N, train_N = split_N == "test", split_N == "train"
    leaks = sorted(i for group in groups if test_N[list(group)].any() for i in group if train_N[i])
    return Duplicates(tuple(sorted(groups)), count_S[stem_N] > 1, tuple(leaks))


def merged(one_N: npt.NDArray[np.integer], other_N: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """The groups of samples that share a value of either, int32 (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(one_N)
    row, one, other = np.arange(size), size + one_N, 2 * size + other_N
    ends = (np.concatenate([row, row]), np.concatenate([one, other]))
    edges = coo_array((np.ones(2 * size, dtype=np.int8), ends), shape=(3 * size, 3 * size))
    _, group = connected_components(edges, directed=False)
    return np.asarray(group[:size], dtype=np.int32)
