"""Two processes over gloo; each scenario runs in both, and what they saw is compared here."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from secateur import InputError, PruningSampler
from secateur.pruning.distributed import SharedLosses
from secateur.streams import uniform
from tests.forked import in_processes

EPOCHS, WARMUP = 5, 1
EVEN = 360  # samples, of which every epoch takes an even number, so that none has to sit out
SETTINGS = {"epochs": EPOCHS, "warmup_epochs": WARMUP, "keep": 0.5}


def make(size=EVEN, method="adaptive", **settings):
    return PruningSampler(np.arange(size) % 4, method=method, **(SETTINGS | settings))


def loss_of(sampler, index, epoch):
    """A loss that hangs on sample and epoch alone, not on who computes it."""
    return torch.from_numpy(uniform(sampler.pruner.samples.key_N, "loss", epoch)[index.numpy()]).float() + 0.01


def train(sampler, network, batch=10, epochs=EPOCHS, stop=None):
    """The positions of each epoch; after `stop` batches of the last, it is left."""
    size = len(sampler.pruner.samples)
    loader = DataLoader(TensorDataset(torch.arange(size), torch.ones(size, 3)), batch, sampler=sampler)
    visited = []
    for epoch in range(sampler.epoch, epochs):
        seen = []
        for count, (index, x) in enumerate(loader):
            if stop == count and epoch == epochs - 1:
                break
            loss = loss_of(sampler, index, epoch) + 0 * network(x).sum(1)
            sampler.update(index, loss).backward()
            seen += index.tolist()
        # It worsens in one process alone, and in the mean enough to make pruning wait.
        sampler.validation_loss = 1.0 + (dist.get_rank() if dist.is_initialized() else 0.5) * (epoch == 2)
        visited.append(seen)
    return visited


def work(rank, folder):
    """One process."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    network = DistributedDataParallel(torch.nn.Linear(3, 1))
    found = {}
    for size in (EVEN, 203):
        sampler = make(size)
        visited = train(sampler, network)
        mask = sampler.mask()
        state = sampler.state_dict()
        found[size] = {"visited": visited, "kept": mask.kept, "digest": mask.digest, "length": len(sampler)}
        found[size] |= {"active": [row["active"] for row in sampler.pruner.trajectory], "state": state}
    sampler = make()
    train(sampler, network, epochs=3, stop=3)
    found["middle"] = sampler.state_dict()
    again = make()
    again.load_state_dict(found["middle"])
    found["rest"] = train(again, network)
    found["rest digest"] = again.mask().digest
    found["errors"] = errors(rank, network)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def errors(rank, network):
    """What each process says of what is wrong in one of them, or between them."""

    def told(action):
        try:
            action()
        except InputError as error:
            return str(error)

    ill = make()
    batch = torch.tensor(list(ill))
    ill.update(batch, torch.full((len(batch),), float("nan") if rank else 1.0))
    return [
        told(ill.state_dict),
        told(lambda: list(make(seed=rank))),
        told(lambda: list(make(1, epochs=2))),
    ]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    in_processes(work, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    sampler = make()
    return train(sampler, torch.nn.Linear(3, 1), batch=20), sampler.mask()


def test_two_processes_see_the_mask_that_one_would(ranks, alone):
    visited, mask = alone
    assert ranks[0][EVEN]["digest"] == ranks[1][EVEN]["digest"] == mask.digest
    for epoch, order in enumerate(visited):
        for rank in range(2):
            assert ranks[rank][EVEN]["visited"][epoch] == order[rank::2]
    assert [len(order) for order in visited] == [360, 360, 270, 340, 240]
    assert mask.kept.sum() == 180


@pytest.mark.parametrize("size", [EVEN, 203])
def test_no_sample_twice_and_none_lost(ranks, size):
    for epoch in range(EPOCHS):
        parts = [ranks[rank][size]["visited"][epoch] for rank in range(2)]
        assert len(parts[0]) == len(parts[1])
        both = np.concatenate(parts)
        active_N = np.unpackbits(ranks[0][size]["active"][epoch], count=size).astype(bool)
        assert np.array_equal(np.sort(both), np.flatnonzero(active_N))
    assert ranks[0][size]["length"] == len(parts[0])
    assert np.array_equal(ranks[0][size]["kept"], ranks[1][size]["kept"])
    assert ranks[0][size]["kept"].sum() == round(0.5 * size)


def test_the_odd_one_of_the_first_epoch_sits_out(ranks):
    assert sum(len(ranks[rank][203]["visited"][0]) for rank in range(2)) == 202


def test_the_state_is_the_same_in_all_processes(ranks):
    a, b = (ranks[rank][EVEN]["state"] for rank in range(2))
    assert torch.equal(a["pruner"]["losses"]["mean"], b["pruner"]["losses"]["mean"])
    assert a["pruner"]["losses"]["visits"].int().sum() == sum(row["count"] for row in a["pruner"]["trajectory"])
    assert {key: a[key] for key in ("next", "world_size")} == {"next": EPOCHS, "world_size": 2}


def test_going_on_in_mid_epoch_is_the_same_as_not_stopping(ranks):
    for rank in range(2):
        whole = ranks[rank][EVEN]["visited"]
        assert ranks[rank]["rest"] == [whole[2][30:], *whole[3:]]
        assert ranks[rank]["rest digest"] == ranks[rank][EVEN]["digest"]


def test_another_number_of_processes_goes_on_between_epochs_only(ranks):
    with pytest.raises(InputError, match="world_size must be 2 to go on in the midst of an epoch, got 1"):
        make().load_state_dict(ranks[0]["middle"])
    sampler = make()
    sampler.load_state_dict(ranks[0][EVEN]["state"])
    assert sampler.mask().digest == ranks[0][EVEN]["digest"]


def test_what_is_wrong_in_one_process_is_an_error_in_both(ranks):
    nan, seeds, few = ranks[0]["errors"]
    assert ranks[0]["errors"] == ranks[1]["errors"]
    assert "loss must be finite, got nan for sample" in nan
    assert "must be the same in every process" in seeds
    assert few == "keep must leave 2 samples or more (processes times batch_size), got 1"


def test_one_process_alone_needs_no_group():
    losses = SharedLosses(3)
    losses.record([0, 2], [1.0, 2.0])
    losses.settle()
    assert losses.visits_N.tolist() == [1, 0, 1]
