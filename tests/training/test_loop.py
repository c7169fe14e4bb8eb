import numpy as np
import pytest
import torch
from torch import nn

from secateur.dataset import open_table
from secateur.errors import InputError
from secateur.training.config import TrainConfig
from secateur.training.loop import Sgd, Trainer, predict_pictures, scores
from secateur.training.models import make_network


@pytest.fixture
def train(digits_folder):
    return open_table(digits_folder).part("train")


def make_trainer(table, seed=0, **settings):
    config = TrainConfig(**settings)
    return Trainer(make_network(config.model, 10, 8, seed), table, 8, config, seed)


def rates():
    while True:
        yield 0.05


def plain(index, loss, logits):
    return loss.mean()


def noting(seen):
    def objective(index, loss, logits):
        seen.update(zip(index.tolist(), loss.tolist(), strict=True))
        return loss.mean()

    return objective


def test_sgd_is_pytorchs_optimiser():
    config = TrainConfig(learning_rate=0.1, momentum=0.9, weight_decay=1e-2)
    ours, theirs = (make_network("convnet", 10, 8, 0) for _ in range(2))
    sgd = Sgd(ours, config)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
    for step in range(4):
        pictures = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for network in (ours, theirs):
            network(pictures).square().mean().backward()
        sgd.step(0.1)
        reference.step()
        reference.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recorded_losses_are_plain_cross_entropy_by_sample(train):
    trainer = make_trainer(train, augment="none", model="convnet")
    seen = {}
    active = np.zeros(len(train), dtype=bool)
    active[:64] = True
    batches = trainer.batches(active, 0)
    network = make_network("convnet", 10, 8, 0).train()
    trainer.epoch(batches[:1], 0, rates(), noting(seen))
    pictures = torch.stack([trainer.pictures.decoded[int(i)] for i in batches[0]]).float() / 255
    labels = torch.tensor([int(train.label[i]) for i in batches[0]])
    expected = nn.functional.cross_entropy(network(pictures), labels, reduction="none")
    assert [seen[int(i)] for i in batches[0]] == pytest.approx(expected.tolist(), rel=1e-4)


def test_weights_scale_the_gradient(train):
    """Weight 0 on half of a batch and 2 on the other is training on that other half."""
    one, other = (make_trainer(train, augment="none", weight_decay=0.0) for _ in range(2))
    for trainer in (one, other):  # batch statistics would mix the halves
        for module in trainer.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
                module.forward = nn.Identity().forward
    batch = np.arange(32)
    weight_N = np.zeros(len(train), dtype=np.float32)
    weight_N[:16] = 2
    one.epoch([batch], 0, rates(), lambda i, loss, _: (loss * torch.from_numpy(weight_N)[i]).mean())
    other.epoch([batch[:16]], 0, rates(), plain)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_pruned_epoch_is_a_subsequence_of_the_full_one(train):
    trainer = make_trainer(train)
    everything = np.ones(len(train), dtype=bool)
    half = np.arange(len(train)) % 2 == 0
    whole = np.concatenate(trainer.batches(everything, 3)).tolist()
    part = np.concatenate(trainer.batches(half, 3)).tolist()
    assert [i for i in whole if half[i]][: len(part)] == part[: len([i for i in whole if half[i]])]
    assert {len(b) for b in trainer.batches(half, 3)} == {32}
    few = np.arange(len(train)) < 5
    assert [len(b) for b in trainer.batches(few, 0)] == [5]


def test_seeds_rule_everything_and_nothing_global_is_touched(train):
    def trained(seed):
        trainer = make_trainer(train, seed)
        trainer.epoch(trainer.batches(np.ones(len(train), dtype=bool), 0), 0, rates(), plain)
        return torch.cat([p.flatten() for p in trainer.network.parameters()])

    before = torch.get_rng_state()
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_predictions_keep_their_order(train):
    trainer = make_trainer(train)
    whole = predict_pictures(trainer.network, trainer.pictures)
    with torch.no_grad():
        single = trainer.network(trainer.pictures.decoded[17][None].float() / 255)
    assert whole[17] == pytest.approx(single[0].numpy(), abs=1e-5)
    assert whole.shape == (606, 10)


def test_scores_by_hand():
    loss, accuracy = scores(np.array([[0.0, 0.0], [10.0, 0.0]], np.float32), np.array([1, 1], np.int32))
    assert loss == pytest.approx((np.log(2) + 10) / 2, abs=1e-3)
    assert accuracy == 0


@pytest.mark.parametrize("name", ["resnet10t", "shufflenet_v2_x0_5"])
def test_models_of_timm_and_torchvision(name):
    network = make_network(name, 7, 32, 0).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_a_model_that_is_not_there():
    with pytest.raises(
        InputError, match="model must be 'convnet' or a classifier of timm or torchvision, got 'resnet10x'"
    ):
        make_network("resnet10x", 7, 32, 0)
    with pytest.raises(InputError, match="did you mean resnet10t"):
        make_network("net10t", 7, 32, 0)


@pytest.mark.gpu
def test_on_a_gpu_the_loop_learns_in_bfloat16(train):
    trainer = make_trainer(train)
    assert trainer.bf16
    results = [trainer.epoch(trainer.batches(np.ones(len(train), dtype=bool), e), e, rates(), plain) for e in range(5)]
    assert results[-1].loss < results[0].loss
