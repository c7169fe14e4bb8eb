import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from secateur import InputError, PruningSampler

LABELS = np.arange(200) % 4


def make_loader(sampler, workers=0):
    data = TensorDataset(torch.arange(200), torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
    return DataLoader(data, batch_size=16, sampler=sampler, num_workers=workers)


def go(sampler, epochs, workers=0):
    loader, visited = make_loader(sampler, workers), []
    for _ in range(epochs):
        seen = []
        for index, x in loader:
            loss = x.square().sum(1).requires_grad_()
            sampler.update(index, loss).backward()
            seen += index.tolist()
        visited.append(seen)
    return visited


@pytest.mark.parametrize("method", ["full", "random", "adaptive"])
def test_warm_up_on_all_then_the_kept_set(method):
    sampler = PruningSampler(LABELS, epochs=8, warmup_epochs=2, keep=0.5, method=method)
    visited = go(sampler, 8)
    assert [len(set(seen)) for seen in visited] == [len(seen) for seen in visited]
    assert [len(seen) for seen in visited[:2]] == [200, 200]
    assert len(visited[-1]) == (200 if method == "full" else 100)
    assert len(sampler) == len(visited[-1])
    assert sampler.mask().kept.sum() == len(visited[-1])


def test_an_epoch_is_a_subsequence_of_the_full_one():
    full = go(PruningSampler(LABELS, epochs=6, warmup_epochs=1, method="full"), 6)
    pruned = go(PruningSampler(LABELS, epochs=6, warmup_epochs=1, keep=0.3, method="random"), 6)
    for whole, part in zip(full, pruned, strict=True):
        members = set(part)
        assert [i for i in whole if i in members] == part


def test_workers_see_the_same_epochs():
    alone, helped = (go(PruningSampler(LABELS, epochs=4, warmup_epochs=1, keep=0.5), 4, workers) for workers in (0, 2))
    assert alone == helped


def test_resume_is_the_same_as_going_on():
    whole = PruningSampler(LABELS, epochs=8, warmup_epochs=2, keep=0.5)
    visited = go(whole, 8)
    first = PruningSampler(LABELS, epochs=8, warmup_epochs=2, keep=0.5)
    go(first, 5)
    second = PruningSampler(LABELS, epochs=8, warmup_epochs=2, keep=0.5)
    second.load_state_dict(first.state_dict())
    assert go(second, 3) == visited[5:]
    assert second.mask().digest == whole.mask().digest


def test_the_loss_is_the_weighted_mean():
    sampler = PruningSampler(LABELS, epochs=4, warmup_epochs=1, keep=0.5, method="adaptive")
    go(sampler, 2)
    index = torch.tensor(list(sampler))
    weight = torch.from_numpy(sampler.pruner.selection.weight_N)[index]
    assert weight.mean().item() == pytest.approx(1, abs=1e-3)
    assert weight.std() > 0.01
    loss = torch.rand(len(index))
    assert sampler.update(index, loss) == pytest.approx((loss * weight).mean())


def test_no_global_random_state_is_touched():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    sampler = PruningSampler(LABELS, epochs=4, warmup_epochs=1)
    for _ in range(4):
        index = torch.tensor(list(sampler))
        sampler.update(index, torch.ones(len(index)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_wrong_use():
    with pytest.raises(InputError, match=r"warmup_epochs must be in \[0, 3\], got 4"):
        PruningSampler(LABELS, epochs=4, warmup_epochs=4)
    with pytest.raises(InputError, match=r"keep must be in \(0, 1\], got 1\.4"):
        PruningSampler(LABELS, epochs=4, keep=1.4, warmup_epochs=1)
    sampler = PruningSampler(LABELS, epochs=2, warmup_epochs=1)
    go(sampler, 2)
    with pytest.raises(InputError, match="epochs must be the number that the loop runs, got 2 and one more"):
        iter(sampler)
