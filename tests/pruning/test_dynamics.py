from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.pruning.dynamics import ForgettingEvents, el2n, mark_counts


def test_el2n_is_the_length_of_the_error():
    rng = np.random.default_rng(0)
    logit_NC, label_N = rng.normal(0, 3, (50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    error_NC = torch.from_numpy(logit_NC).softmax(1) - torch.nn.functional.one_hot(torch.from_numpy(label_N), 7)
    assert el2n(logit_NC, label_N) == pytest.approx(error_NC.norm(dim=1).numpy(), abs=1e-6)


def slow_events(history):
    """Number of times that a right answer is followed by a wrong one; None where no answer was right."""
    if True not in history:
        return None
    return sum(before and not after for before, after in pairwise(history))


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=12), st.integers(0, 100))
def test_forgetting_counts_what_was_right_and_then_wrong(right_NE, seed):
    """Samples come in any order, in batches of any size, and some are missed in an epoch."""
    samples, rng = len(right_NE), np.random.default_rng(seed)
    events, seen = ForgettingEvents(samples), [[] for _ in right_NE]
    for epoch in range(6):
        order = rng.permutation(samples)[: rng.integers(1, samples + 1)]
        for index_B in np.array_split(order, 2):
            events.record(index_B, np.array([right_NE[i][epoch] for i in index_B], dtype=bool))
        for i in order:
            seen[i].append(right_NE[i][epoch])
    never = max(len(history) for history in seen) + 1
    expected = [slow_events(history) for history in seen]
    assert events.score().tolist() == [never if count is None else count for count in expected]


@given(st.lists(st.integers(20, 40), min_size=1, max_size=30), st.floats(0.1, 1))
def test_marks_make_up_the_kept_fraction(sizes, keep):
    counts = mark_counts(sizes, keep)
    assert sum(counts) == round(keep * sum(sizes))
    assert all(0 < count <= size and abs(count - keep * size) <= 1 for count, size in zip(counts, sizes, strict=True))
