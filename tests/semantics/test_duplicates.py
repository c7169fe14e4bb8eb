import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.semantics.duplicates import find_duplicates, merged
from secateur.semantics.neighbours import copies, search


def pictures(count=200, width=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, width))[rng.integers(0, 5, count)] + 0.4 * rng.normal(size=(count, width))


def splits(count, tests=()):
    split_N = np.array(["train"] * count, dtype=object)
    split_N[list(tests)] = "test"
    return split_N


def test_exact_copies_by_id_and_near_ones_by_embedding_with_leaks():
    rng = np.random.default_rng(1)
    embedding_ND = pictures()
    embedding_ND[10] = embedding_ND[3]
    embedding_ND[20] = 2 * (embedding_ND[7] + 0.02 * rng.normal(size=16))  # as another encoding of it
    embedding_ND[21] = embedding_ND[7] + 0.02 * rng.normal(size=16)
    sample_ids = [f"{i:04x}" for i in range(200)]
    sample_ids[10] = sample_ids[3] + "-1"
    found = find_duplicates(sample_ids, embedding_ND, splits(200, [10, 100]))
    assert found.groups == ((3, 10), (7, 20, 21))
    assert np.flatnonzero(found.exact_N).tolist() == [3, 10]
    assert found.leaks == (3,)


def test_exact_copies_are_one_whatever_the_embeddings_say():
    sample_ids = ["a", "b", "a-1", "c", "a-2"]
    found = find_duplicates(sample_ids, np.eye(5), splits(5, [1]))
    assert found.groups == ((0, 2, 4),)
    assert found.leaks == ()


def test_unlike_pictures_of_a_tight_class_are_not_copies():
    embedding_ND = np.ones(16) + 0.05 * np.random.default_rng(0).normal(size=(300, 16))  # cosines above 0.99
    assert find_duplicates([str(i) for i in range(300)], 10 * embedding_ND, splits(300), threshold=0.1).groups == ()


def test_many_copies_of_one_picture_are_one_group():
    embedding_ND = pictures()
    embedding_ND[50:90] = embedding_ND[50]
    near = search(embedding_ND)
    assert (copies(near)[50:90] == 50).all()
    assert find_duplicates([str(i) for i in range(200)], embedding_ND, splits(200), near=near).groups == (
        tuple(range(50, 90)),
    )


def test_one_picture_and_wrong_input():
    assert find_duplicates(["a"], np.ones((1, 4)), splits(1)).groups == ()
    with pytest.raises(InputError, match="threshold must be"):
        find_duplicates(["a", "b"], np.eye(2), splits(2), threshold=1.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_merged_groups_are_the_connected_ones(pairs):
    one_N, other_N = (np.array(side) for side in zip(*pairs, strict=True))
    one_N, other_N = (np.unique(side, return_inverse=True)[1] for side in (one_N, other_N))
    reached = np.equal.outer(one_N, one_N) | np.equal.outer(other_N, other_N)
    for _ in pairs:
        reached = (reached.astype(int) @ reached.astype(int)) > 0
    group_N = merged(one_N, other_N)
    assert np.array_equal(np.equal.outer(group_N, group_N), reached)
