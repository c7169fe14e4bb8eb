"""Selection over shards is selection over all samples, to the bit."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.pruning import selection, sharded
from secateur.streams import sample_keys
from tests.forked import in_processes

CLASSES = 4


def parts_of(cuts, size, *arrays):
    """Each array cut at the same places; some parts may be empty."""
    places = sorted(cut % (size + 1) for cut in cuts)
    return list(zip(*(np.split(a, places) for a in arrays), strict=True))


def over_shards(cuts, count, score_N, label_N, key_N, accepted_N, floor):
    parts = parts_of(cuts, len(score_N), score_N, label_N, key_N, accepted_N)
    talks = [
        sharded.project(score, count, label, key, accepted, floor, classes=CLASSES, place=(rank, len(parts)))
        for rank, (score, label, key, accepted) in enumerate(parts)
    ]
    return [np.concatenate(found) for found in zip(*sharded.in_turns(talks), strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 60),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    keep=st.floats(0, 1),
    floor=st.sampled_from([0.0, 0.3, 1.0]),
    accepted=st.sampled_from([0.1, 0.6, 1.0]),
    kind=st.sampled_from([np.float32, np.float64]),
)
@settings(deadline=None)
def test_the_kept_set_is_that_of_one_process(seed, size, levels, cuts, keep, floor, accepted, kind):
    rng = np.random.default_rng(seed)
    score_N = (rng.integers(-levels, levels + 1, size) * rng.choice([-0.5, 0.5])).astype(kind)  # ties, and -0.0
    label_N = rng.choice(CLASSES, size, p=[0.7, 0.2, 0.08, 0.02]).astype(np.int32)
    key_N = sample_keys(rng.permutation(size))
    accepted_N = rng.random(size) < accepted
    count = max(1, round(keep * size))
    expected = selection.project(score_N, count, label_N, key_N, accepted_N, floor)
    found = over_shards(cuts, count, score_N, label_N, key_N, accepted_N, floor)
    assert found[0].sum() == min(count, accepted_N.sum())
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@given(
    seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 70_000), max_size=3), spread=st.sampled_from([0, 1])
)
@settings(max_examples=20, deadline=None)
def test_ranks_are_those_of_one_process(seed, cuts, spread):
    rng = np.random.default_rng(seed)
    value_N = (rng.gamma(0.5, 1.0, 70_000) - spread * rng.random(70_000)).astype(np.float32)
    talks = [sharded.rank(value) for (value,) in parts_of(cuts, len(value_N), value_N)]
    found_N = np.concatenate(sharded.in_turns(talks))
    assert np.array_equal(found_N, selection.rank(value_N, sample_keys(np.arange(len(value_N)))))


def test_samples_of_one_name_fall_by_their_place():
    same_N = np.zeros(9, dtype=np.uint64)
    label_N = np.repeat(np.int32([0, 1, 1]), 3)
    for floor in (0.0, 1.0):
        kept_N, _ = over_shards([2, 5], 4, np.zeros(9, np.float32), label_N, same_N, np.ones(9, bool), floor)
        assert kept_N.sum() == 4
        assert [kept_N[label_N == c].sum() >= floor * 4 / 9 * n // 1 for c, n in ((0, 3), (1, 6))] == [True, True]
    plain_N, _ = over_shards([2, 5], 4, np.zeros(9, np.float32), label_N, same_N, np.ones(9, bool), 0.0)
    assert plain_N.tolist() == [True] * 4 + [False] * 5


def test_what_is_told_does_not_grow_with_the_samples():
    told = {}
    for size in (1000, 100_000):
        rng = np.random.default_rng(0)
        score_N, label_N = rng.random(size).astype(np.float32), rng.integers(0, CLASSES, size).astype(np.int32)
        talk = sharded.project(
            score_N, size // 2, label_N, sample_keys(np.arange(size)), None, 0.9, classes=CLASSES, place=(0, 1)
        )
        told[size], answer = 0, None
        try:
            while True:
                _, answer = talk.send(answer)
                told[size] += answer.nbytes
        except StopIteration:
            pass
    assert max(told.values()) < 4 * 2**20


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rng = np.random.default_rng(0)
    score_N = rng.random(1001).astype(np.float32)
    part = slice(None, 300) if rank == 0 else slice(300, None)
    label_N, key_N = np.zeros(1001, np.int32), sample_keys(np.arange(1001))
    talk = sharded.project(score_N[part], 400, label_N[part], key_N[part], classes=1, place=(rank, 2))
    kept_N, _ = sharded.meet(talk)
    torch.save(torch.from_numpy(kept_N), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree_over_gloo(tmp_path):
    in_processes(work, str(tmp_path))
    kept_N = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]).numpy()
    score_N = np.random.default_rng(0).random(1001).astype(np.float32)
    assert np.array_equal(np.flatnonzero(kept_N), np.sort(np.argsort(-score_N)[:400]))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bits_are_in_the_order_of_the_numbers(kind):
    value_N = np.array([-np.inf, -2.5, -1e-40, 0.0, 1e-40, 3, np.inf], dtype=kind)
    assert (np.diff(sharded.ordered(value_N).astype(float)) > 0).all()
