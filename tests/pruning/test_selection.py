import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import rankdata

from secateur.pruning.selection import LEVELS, noisy, project, rank, soft_mask, top
from secateur.streams import sample_keys


def keys(count):
    return sample_keys([str(i) for i in range(count)])


def normal(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=50), st.integers(0, 3))
def test_ranks_against_scipy(values, seed):
    value_N = np.array(values, dtype=float)
    found = rank(value_N, keys(len(values)), seed) * (len(values) - 1) + 1
    assert sorted(found.round().astype(int)) == list(range(1, len(values) + 1))
    low, high = rankdata(value_N, "min"), rankdata(value_N, "max")
    assert ((found >= low - 1e-3) & (found <= high + 1e-3)).all()


def test_ranks_of_many_have_16_bits_and_ties_share_the_mean():
    rng = np.random.default_rng(0)
    value_N = np.concatenate([rng.gamma(1.0, 0.5, 2 * LEVELS), -rng.gamma(1.0, 2.0, LEVELS), np.zeros(1000)])
    found = rank(value_N, keys(4))  # keys are not asked for
    exact = (rankdata(value_N) - 1) / (len(value_N) - 1)
    assert abs(found - exact).max() < 1e-3
    assert np.unique(found[-1000:]).size == 1
    assert (np.diff(found[np.argsort(value_N, kind="stable")]) >= 0).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 70))
def test_the_top_against_sorting(values, count):
    score_N, key_N = np.array(values, dtype=np.float32), keys(len(values))
    top_N = top(score_N, count, key_N)
    assert top_N.sum() == min(count, len(values))
    assert sorted(score_N[top_N]) == sorted(values)[len(values) - min(count, len(values)) :]
    order = np.random.default_rng(0).permutation(len(values))
    assert np.array_equal(top(score_N[order], count, key_N[order]), top_N[order])


def test_ties_fall_by_the_sample_and_not_by_its_place():
    key_N = keys(30)
    order = np.random.default_rng(0).permutation(30)
    tied = np.zeros(30)
    assert np.array_equal(rank(tied, key_N)[order], rank(tied, key_N[order]))


@settings(deadline=None)
@given(
    st.integers(2, 200),
    st.floats(0.01, 0.99),
    st.floats(0.1, 1000),
    st.integers(0, 100),
)
def test_the_soft_mask_spends_exactly_its_budget(count, share, scale, seed):
    mask_N, _ = soft_mask(normal(count, seed), scale, share * count)
    assert mask_N.sum() == pytest.approx(share * count, rel=1e-6)
    assert mask_N.min() >= 0
    assert mask_N.max() <= 1


def test_the_soft_mask_is_the_maximiser_of_its_objective():
    logit_N, scale, total = normal(6), 3.0, 2.5
    found, _ = soft_mask(logit_N, scale, total)

    def objective(s):
        return -(s @ logit_N - (s * np.log(s) + (1 - s) * np.log(1 - s)).sum() / scale)

    best = minimize(
        objective,
        np.full(6, total / 6),
        bounds=[(1e-9, 1 - 1e-9)] * 6,
        constraints={"type": "eq", "fun": lambda s: s.sum() - total},
        options={"ftol": 1e-14},
    )
    assert found == pytest.approx(best.x, abs=1e-4)


def test_a_large_scale_is_top_k_and_the_gate_holds():
    logit_N = normal(100)
    accepted_N = np.arange(100) % 3 > 0
    mask_N, _ = soft_mask(logit_N, 1e7, 20, accepted_N)
    best = np.flatnonzero(accepted_N)[np.argsort(-logit_N[accepted_N])[:20]]
    assert set(np.flatnonzero(mask_N > 0.5)) == set(best)
    assert (mask_N[~accepted_N] == 0).all()


@settings(deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 60),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_projection_against_a_slow_oracle(seed, count, floor, refused):
    rng = np.random.default_rng(seed)
    score_N, label_N = rng.normal(size=60), rng.integers(0, 4, 60).astype(np.int32)
    accepted_N = rng.random(60) >= refused
    kept_N, floor_N = project(score_N, count, label_N, keys(60), accepted_N, floor)

    count = min(count, int(accepted_N.sum()))
    assert kept_N.sum() == count
    assert not (kept_N & ~accepted_N).any()
    best_first = [i for i in np.argsort(-score_N) if accepted_N[i]]
    chosen = []
    for label in range(4):
        of_class = [i for i in best_first if label_N[i] == label]
        quota = min(int(np.floor(floor * (count / 60) * (label_N == label).sum())), len(of_class))
        chosen += of_class[:quota]
    chosen += [i for i in best_first if i not in chosen][: count - len(chosen)]
    assert set(np.flatnonzero(kept_N)) == set(chosen)
    assert set(np.flatnonzero(floor_N)) == set(chosen) - set(best_first[:count])


def test_draws_become_even_or_top_k():
    logit_N = np.linspace(0, 1, 1000)
    drawn = np.zeros(1000)
    for epoch in range(200):
        drawn += top(noisy(logit_N, 1e-6, keys(1000), "selection", 0, epoch), 300, keys(1000))
    assert abs(drawn[:500].mean() - 60) < 2  # 200 draws of 30 %
    assert abs(drawn[500:].mean() - 60) < 2
    hard = top(noisy(logit_N, 1e6, keys(1000), "selection", 0, 0), 300, keys(1000))
    assert set(np.flatnonzero(hard)) == set(range(700, 1000))


def test_draws_follow_the_soft_mask():
    """A sample is above zero with exactly its probability in the soft mask."""
    logit_N, scale = np.repeat([0.0, 0.5, 1.0], 2000), 4.0
    mask_N, mu = soft_mask(logit_N, scale, 2400)
    above = noisy(logit_N, scale, keys(6000), "selection", 1, 1) > scale * mu
    for value in (0.0, 0.5, 1.0):
        group = logit_N == value
        assert above[group].mean() == pytest.approx(mask_N[group].mean(), abs=0.04)
