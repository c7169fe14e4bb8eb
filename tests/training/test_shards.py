import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.dataset import open_table
from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.pruner import Pruner
from secateur.training import phases, shards
from secateur.training.config import TrainConfig
from secateur.training.loop import Trainer, predict_pictures
from secateur.training.models import Classifier, make_network
from secateur.training.seed import Seed
from secateur.training.shards import ShardedTrainer, cut, pairwise


@pytest.fixture(scope="module")
def train(digits_folder):
    return open_table(digits_folder).part("train")


def config(**settings):
    return TrainConfig(**{"deterministic": True, "augment": "none", "seeds": (0,)} | settings)


def mean(index, loss, logits):
    return loss.mean()


def rates():
    while True:
        yield 0.05


@given(size=st.integers(0, 100), count=st.sampled_from([1, 2, 3, 8]))
def test_shards_are_even_and_in_order(size, count):
    parts = cut(np.arange(size), count)
    assert len(parts) == count
    assert np.concatenate(parts).tolist() == list(range(size))
    sizes = [len(part) for part in parts if len(part)]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert size < 2 or min(sizes) >= 2
    assert len(sizes) == count or size < 2 * count


@given(seed=st.integers(0, 2**32 - 1), level=st.integers(0, 3))
def test_a_sum_by_pairs_is_the_same_in_parts(seed, level):
    rng = np.random.default_rng(seed)
    parts = list(torch.from_numpy((rng.standard_normal((8, 5)) * 10.0 ** rng.integers(-6, 6, (8, 5))).astype("f4")))
    step = 2**level
    again = pairwise(pairwise(parts[start : start + step]) for start in range(0, 8, step))
    assert torch.equal(pairwise(parts), again)
    assert torch.allclose(again.double(), torch.stack(parts).double().sum(0), atol=1e-2)


@pytest.mark.parametrize("batch_size", [16, 19, 37])
def test_without_batch_norm_shards_change_nothing_but_rounding(train, batch_size):
    def network():
        torch.manual_seed(0)
        return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), 8)

    settings, rng = config(batch_size=batch_size), np.random.default_rng(0)
    weight_N = torch.from_numpy(rng.random(len(train)).astype(np.float32))
    both = []
    for kind in (Trainer, ShardedTrainer):
        trainer, seen = kind(network(), train, 8, settings, 0), []

        def objective(index, loss, logits, seen=seen):
            seen.extend(index.tolist())
            return (loss * weight_N[index]).mean()

        batches = trainer.batches(np.ones(len(train), dtype=bool), 0)
        batches.append(np.arange(5))  # fewer than shards
        both.append((trainer, trainer.epoch(batches, 0, rates(), objective), seen))
    (plain, one, seen), (sharded, other, seen_too) = both
    assert seen == seen_too
    assert (one.steps, one.samples) == (other.steps, other.samples)
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert one.accuracy == other.accuracy
    for a, b in zip(plain.network.parameters(), sharded.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_running_statistics_are_the_mean_of_the_shards(train):
    trainer = ShardedTrainer(make_network("convnet", 10, 8, 0), train, 8, config(), 0)
    convolution, norm = trainer.network.network[0], trainer.network.network[1]
    index = np.arange(19)
    pictures = (torch.from_numpy(np.stack([trainer.pictures.decoded[i] for i in index])).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        found = [convolution(pictures[part]) for part in cut(index, 8)]
    expected_mean = sum(len(f) / 19 * f.mean((0, 2, 3)) for f in found)
    expected_var = sum(len(f) / 19 * f.transpose(0, 1).flatten(1).var(1) for f in found)
    trainer.epoch([index], 0, rates(), mean)
    assert torch.allclose(norm.running_mean, 0.1 * expected_mean, atol=1e-6)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * expected_var, atol=1e-5)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("size", [1, 3, 9])
def test_batches_smaller_than_the_shards(train, size):
    trainer = ShardedTrainer(make_network("convnet", 10, 8, 0), train, 8, config(), 0)
    result = trainer.epoch([np.arange(size)], 0, rates(), mean)
    assert (result.steps, result.samples) == (1, size)
    assert np.isfinite(result.loss)
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


def test_dropout_of_a_shard_is_its_own(train):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.dropped = nn.Linear(192, 10), []

        def forward(self, x):
            kept = nn.functional.dropout(torch.ones(x.flatten(1).shape), 0.5, self.training)
            self.dropped.append(kept)
            return self.linear(x.flatten(1) * kept)

    def masks(mine=None):
        network = Dropping()
        trainer = ShardedTrainer(network, train, 8, config(), 0)
        trainer.mine = mine or trainer.mine
        trainer.across = lambda total: total
        state = torch.get_rng_state()
        trainer.epoch([np.arange(32), np.arange(32, 64)], 3, rates(), mean)
        assert torch.equal(torch.get_rng_state(), state)
        return network.dropped

    whole = masks()
    assert len({mask.numpy().tobytes() for mask in whole}) == 16
    second_half = masks(range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(second_half, whole[4:8] + whole[12:], strict=True))


def test_prediction_is_that_of_one_process(train, monkeypatch):
    trainer = ShardedTrainer(make_network("convnet", 10, 8, 0), train, 8, config(), 0)
    expected = predict_pictures(trainer.network, trainer.pictures)
    assert np.array_equal(trainer.predict(trainer.pictures), expected)


def test_what_does_not_go_with_shards(train, digits_folder, monkeypatch):
    with pytest.raises(InputError, match=r"batch_size must be in \[16, inf\), got 8"):
        config(batch_size=8)
    work = Seed(open_table(digits_folder), config(), 8, 0)
    released = PruneConfig(method="adaptive-released", epochs=4)
    with pytest.raises(InputError, match="'adaptive-released' must run in one process, not deterministic"):
        phases.Pruning(work, Pruner(released, None, train.label), released)
    monkeypatch.setattr(shards, "place", lambda: (0, 3))
    with pytest.raises(InputError, match="processes must be a divisor of 8 where training is deterministic, got 3"):
        ShardedTrainer(make_network("convnet", 10, 8, 0), train, 8, config(), 0)
