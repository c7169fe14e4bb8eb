"""The sampler in loops as people write them: workers, accumulation, AMP, and stops in the midst of an epoch."""

import io

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from secateur import InputError, PruningSampler
from secateur.pruning.method import Semantics
from secateur.pruning.methods import METHODS
from secateur.pruning.selection import project

SIZE, EPOCHS = 200, 6
INPUTS = torch.randn(SIZE, 5, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS.sum(1) > 0).long() + 2 * (INPUTS[:, 0] > 0.5)
ALL = [name for name, method in METHODS.items() if "proxy" not in method.needs and name != "confident"]


def semantics():
    """Made up: the first label of every tenth sample is doubted."""
    probability_N = np.where(np.arange(SIZE) % 10 == 0, 0.1, 0.95).astype(np.float32)
    posterior_NC = np.full((SIZE, 4), 0.02, np.float16)
    posterior_NC[np.arange(SIZE), LABELS] = 0.94
    return Semantics(np.log(probability_N), probability_N, LABELS.numpy().astype(np.int32), posterior_NC, posterior_NC)


def make(method="multimodal", warmup_epochs=1, keep=0.5, **settings):
    scores = {name: np.linspace(0, 1, SIZE, dtype=np.float32) for name in ("el2n", "forgetting")}
    return PruningSampler(
        LABELS,
        epochs=EPOCHS,
        warmup_epochs=warmup_epochs,
        keep=keep,
        method=method,
        semantics=semantics(),
        scores=scores,
        **settings,
    )


class Loop:
    """Somebody's own training loop, which can be stopped after any batch."""

    def __init__(self, sampler, workers=0, accumulate=1, dtype=None, scaler=None, drop_last=False):
        data = TensorDataset(torch.arange(SIZE), INPUTS, LABELS)
        settings = {"num_workers": workers, "persistent_workers": True, "prefetch_factor": 4} if workers else {}
        self.loader = DataLoader(data, 16, sampler=sampler, drop_last=drop_last, **settings)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = torch.nn.Linear(5, 4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.sampler, self.accumulate, self.dtype, self.scaler = sampler, accumulate, dtype, scaler
        self.batches = []

    def run(self, stop=None):
        for _ in range(self.sampler.epoch, EPOCHS):
            for count, (index, x, y) in enumerate(self.loader):
                with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
                    logits = self.model(x)
                    loss = functional.cross_entropy(logits, y, reduction="none")
                loss = self.sampler.update(index, loss, logits) / self.accumulate
                (self.scaler.scale(loss) if self.scaler else loss).backward()
                if (count + 1) % self.accumulate == 0 or count + 1 == len(self.loader):
                    self.step()
                self.batches.append(index.tolist())
                if len(self.batches) == stop:
                    return self
            self.sampler.validation_loss = 1.0
        return self

    def step(self):
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()


def saved(sampler):
    """The state, through a file that holds tensors alone."""
    buffer = io.BytesIO()
    torch.save(sampler.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("method", ["adaptive", "multimodal", "infobatch"])
@pytest.mark.parametrize(("stop", "workers"), [(5, 0), (13, 0), (20, 0), (20, 2)])
def test_going_on_in_mid_epoch_is_the_same_as_not_stopping(method, stop, workers):
    whole = Loop(make(method)).run()
    first = Loop(make(method), workers).run(stop)
    second = Loop(make(method))
    second.sampler.load_state_dict(saved(first.sampler))
    second.model.load_state_dict(first.model.state_dict())
    second.run()
    assert first.batches + second.batches == whole.batches
    assert second.sampler.mask().digest == whole.sampler.mask().digest
    assert np.array_equal(second.sampler.losses.last_N, whole.sampler.losses.last_N)
    for mine, theirs in zip(second.sampler.pruner.trajectory, whole.sampler.pruner.trajectory, strict=True):
        assert (mine["epoch"], mine["count"]) == (theirs["epoch"], theirs["count"])
        assert np.array_equal(mine["active"], theirs["active"])


def test_a_state_between_epochs_brings_the_validation_loss():
    whole, first, second = make("adaptive"), make("adaptive"), make("adaptive")
    for sampler, losses in ((whole, [1.0, 1.0, 2.0]), (first, [1.0, 1.0, 2.0])):
        for loss in losses:
            index = torch.tensor(list(sampler))
            sampler.update(index, index / SIZE + 0.1)
            sampler.validation_loss = loss
    second.load_state_dict(saved(first))
    assert second.epoch == 3
    assert list(second) == list(whole)
    assert second.pruner.method.pace.waits == whole.pruner.method.pace.waits == 1


def test_saving_changes_nothing():
    sampler, other = make(), make()
    for epoch, (batch, same) in enumerate((list(sampler), list(other)) for _ in range(3)):
        assert batch == same
        for start in range(0, len(batch), 50):
            index = torch.tensor(batch[start : start + 50])
            loss = (index.float() + epoch) % 7 + 0.1
            sampler.update(index, loss)
            other.update(index, loss)
            other.state_dict()
    assert sampler.mask().digest == other.mask().digest


def test_a_look_at_the_first_batch_costs_no_epoch():
    sampler = make()
    loop = Loop(sampler, workers=2)
    next(iter(loop.loader))
    assert len(loop.run().batches) == len(Loop(make()).run().batches)
    assert [row["epoch"] for row in sampler.pruner.trajectory] == list(range(EPOCHS))


def test_a_loop_that_never_calls_update_is_told_so():
    loader = Loop(make()).loader
    for _ in range(4):
        list(loader)
    with pytest.raises(InputError, match="update must be called for each batch, got none in 3 passes"):
        list(loader)


def test_gradient_accumulation_is_the_large_batch():
    accumulated = Loop(make(keep=1.0, gate=0.0), accumulate=13)
    accumulated.run(13)
    model = Loop(make()).model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    batches = accumulated.batches
    loss = sum(functional.cross_entropy(model(INPUTS[b]), LABELS[b]) for b in batches) / 13
    loss.backward()
    optimizer.step()
    assert torch.allclose(accumulated.model.weight, model.weight, atol=1e-6)


def test_amp():
    plain = Loop(make(relabel=True)).run()
    half = Loop(make(relabel=True), dtype=torch.bfloat16).run()
    scaled = Loop(make(relabel=True), dtype=torch.bfloat16, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)).run()
    assert len(half.batches) == len(plain.batches)
    assert torch.allclose(half.model.weight, plain.model.weight, atol=0.2)
    assert not torch.equal(half.model.weight, plain.model.weight)
    assert torch.equal(half.model.weight, scaled.model.weight)  # the scale is a power of two
    assert half.sampler.mask().digest == scaled.sampler.mask().digest


def test_losses_in_half_precision_are_taken():
    sampler = make()
    index = torch.tensor(list(sampler))
    sampler.update(index, torch.full((SIZE,), 1.5, dtype=torch.bfloat16))
    assert sampler.mask().loss == pytest.approx(np.full(SIZE, 1.5))


def test_drop_last_with_whole_batches():
    sampler = make(batch_size=16)
    loop = Loop(sampler, drop_last=True).run()
    counts = [row["count"] for row in sampler.pruner.trajectory]
    assert counts[0] == 192
    assert all(count % 16 == 0 for count in counts)
    assert sum(counts) == sum(map(len, loop.batches))
    assert sampler.state_dict()["consumed"] is None


@pytest.mark.parametrize("method", ALL)
def test_every_method_copes_without_a_warm_up(method):
    sampler = make(method, warmup_epochs=0)
    loop = Loop(sampler)
    assert len(sampler) == SIZE
    iter(sampler)
    mask = sampler.mask()
    assert 0 < mask.kept.sum() <= SIZE
    loop.run()
    assert np.isfinite(sampler.losses.last_N[sampler.losses.visits_N > 0]).all()
    assert np.isfinite(sampler.mask().score).all()


BAD_LOSSES = [
    ([3, 4], [1.0, float("nan")], "loss must be finite, got nan for sample 4"),
    ([3, 4], [float("inf"), 1.0], "loss must be finite, got inf for sample 3"),
    ([3, SIZE], [1.0, 1.0], r"sample index must be in \[0, 199\], got 200"),
    ([-1, 3], [1.0, 1.0], r"sample index must be in \[0, 199\], got -1"),
]


@pytest.mark.parametrize(("index", "loss", "message"), BAD_LOSSES)
def test_bad_losses_are_found_at_the_next_epoch(index, loss, message):
    sampler = make()
    iter(sampler)
    sampler.update(torch.tensor(index), torch.tensor(loss))
    with pytest.raises(InputError, match=message):
        iter(sampler)


def test_a_bad_batch():
    sampler = make(warmup_epochs=0)
    with pytest.raises(InputError, match=r"index must be whole numbers, the positions of the samples, got torch.float"):
        sampler.update(torch.tensor([0.0]), torch.tensor([1.0]))
    with pytest.raises(InputError, match=r"reduction='none'\), got shape \(\) for \(2,\)"):
        sampler.update(torch.tensor([0, 1]), torch.tensor(1.0))
    left_out = sorted(set(range(SIZE)) - set(sampler))[0]
    sampler.update(torch.tensor([left_out]), torch.ones(1))
    with pytest.raises(InputError, match=f"positions that the sampler gave in this epoch, got {left_out}"):
        iter(sampler)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0], r"labels must be one whole number for each sample, got float64 of shape \(2,\)"),
        ([0, -1], "labels must be 0 or above, got -1"),
        ([[0, 1], [1, 0]], r"got int64 of shape \(2, 2\)"),
        ([], "labels must be one for each of one or more samples, got 0"),
        (["cat", "dog"], "labels must be one whole number for each sample, got <U3"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(InputError, match=message):
        PruningSampler(labels, epochs=2, warmup_epochs=1)


OTHERS = {
    "method": ({"method": "random"}, "state must be of method 'random', keep 0.5, seed 0, got .*'multimodal'"),
    "keep": ({"keep": 0.4}, "state must be of method 'multimodal', keep 0.4, seed 0, got one of .* keep 0.5"),
    "seed": ({"seed": 3}, "state must be of .* seed 3, got one of .* seed 0"),
    "ids": ({"sample_ids": [f"s{i}" for i in range(SIZE)]}, "state must be of this data set"),
}


@pytest.mark.parametrize(("settings", "message"), OTHERS.values(), ids=OTHERS)
def test_a_state_of_something_else(settings, message):
    state, other = make().state_dict(), make(**settings)
    with pytest.raises(InputError, match=message):
        other.load_state_dict(state)
    assert other.epoch == 0


def test_a_state_of_other_labels_or_fewer_samples():
    state = PruningSampler([0, 1, 1, 0], epochs=2, warmup_epochs=1).state_dict()
    for labels in ([0, 1, 1, 1], [0, 1, 1]):
        with pytest.raises(InputError, match="state must be of this data set"):
            PruningSampler(labels, epochs=2, warmup_epochs=1).load_state_dict(state)


def test_a_class_that_the_gate_empties_is_named_and_the_others_fill_its_place():
    says = semantics()
    says.label_probability_N[(LABELS == 3).numpy()] = 0.2
    sampler = PruningSampler(LABELS, epochs=4, warmup_epochs=1, keep=0.3, method="multimodal", semantics=says)
    for _ in range(4):
        index = torch.tensor(list(sampler))
        sampler.update(index, torch.ones(len(index)))
    assert [alarm for alarm in sampler.alarms if "class" in alarm] == ["the gate accepts no sample of class 3"]
    kept_N = sampler.mask().kept
    assert kept_N.sum() == 60
    assert not kept_N[(LABELS == 3).numpy()].any()


def test_no_floor_makes_a_ratio_impossible():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = int(rng.integers(1, 60))
        labels = rng.integers(0, rng.integers(1, 30), size).astype(np.int32)
        accepted_N = rng.random(size) < rng.random()
        count = int(rng.integers(1, size + 1))
        kept_N, _ = project(rng.random(size), count, labels, np.arange(size, dtype=np.uint64), accepted_N, 1.0)
        assert kept_N.sum() == min(count, accepted_N.sum())
        assert not (kept_N & ~accepted_N).any()
