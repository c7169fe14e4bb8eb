import numpy as np
import pytest
import torch

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses
from secateur.pruning.method import Progress, Samples
from secateur.pruning.released import AdaptiveReleased, mask_gradient, soft
from secateur.streams import sample_keys, shuffled
from secateur.training.checkpoint import dump, load

SIZE, BATCH, EPOCHS, WARM_UP = 640, 20, 13, 1
PER_EPOCH = SIZE // BATCH
KEYS = sample_keys(np.arange(SIZE))
LABELS = (np.arange(SIZE) % 5).astype(np.int32)


def samples():
    return Samples(KEYS, LABELS, SampleLosses(SIZE))


def losses(epoch):
    """A model that learns: most samples get easy, some never."""
    rng = np.random.default_rng(epoch)
    hard_N = np.random.default_rng(99).random(SIZE) < 0.2
    return (rng.gamma(2.0, 0.5, SIZE) * np.where(hard_N, 1.5, 0.8**epoch)).astype(np.float32)


def stream(keep):
    """All batches of a run, each with its epoch and the fraction of pruning that is over."""
    total, step, epoch = round(keep * (EPOCHS - WARM_UP) * PER_EPOCH), 0, WARM_UP
    while step < total:
        order = shuffled(KEYS, "order", 0, epoch).reshape(-1, BATCH)[: total - step]
        for place, index_B in enumerate(order):
            yield epoch, place, step / total, index_B
            step += 1
        epoch += 1


def made(keep):
    return AdaptiveReleased(PruneConfig(method="adaptive-released", keep=keep, epochs=EPOCHS))


def run(method, keep, stop=None, start=0):
    """Drive a method over the stream; its soft masks, step by step."""
    table, weights = samples(), []
    for step, (epoch, place, done, index_B) in enumerate(stream(keep)):
        if step == stop:
            break
        if step < start:
            continue
        if place == 0:
            assert method.select(table, Progress(epoch, done, 0)).active_N.all()
        weights.append(method.step(index_B, losses(epoch)[index_B]))
    return weights


def oracle(keep):
    """The released recipe by autograd and PyTorch's own SGD on the whole mask, in double precision."""
    mask_N = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
    sgd = torch.optim.SGD([mask_N], lr=0.1, momentum=0.9, weight_decay=5e-4)
    total = round(keep * (EPOCHS - WARM_UP) * PER_EPOCH)
    penalty, at, below, masks, scales = 50.0, 0, 0, [], []
    for epoch, place, _, index_B in stream(keep):
        below = 0 if place == 0 else below
        alpha = 0.1 * (total - at) / total + 5 * at / total
        loss_B = torch.from_numpy(losses(epoch)[index_B].astype(np.float64))
        s_B = torch.sigmoid(alpha * mask_N[torch.from_numpy(index_B)])
        objective = (loss_B * s_B).mean() - ((loss_B + 1e-5).log() * s_B).mean() + penalty * (s_B.mean() - keep) ** 2
        sgd.zero_grad()
        objective.backward()
        sgd.step()
        masks.append(s_B.detach().numpy())
        scales.append(alpha)
        share = int((s_B > 0.5).sum()) / BATCH
        penalty = 1 + 50 * abs(share - keep)
        if share >= keep:
            at = min(total, at + 1)
        else:
            below += 1
            if below == PER_EPOCH // 16:
                at, below = max(0, at - PER_EPOCH // 16), 0
    return mask_N.detach().numpy(), masks, scales


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_it_is_the_released_recipe(keep):
    method = made(keep)
    weights = run(method, keep)
    expected_N, masks, scales = oracle(keep)
    assert method.logit_N == pytest.approx(expected_N, abs=1e-5)
    assert np.ptp(method.logit_N) > 0.1
    for found_B, expected_B in zip(weights, masks, strict=True):
        assert found_B.dtype == np.float32
        assert found_B == pytest.approx(expected_B, abs=1e-5)
    if keep < 0.8:
        assert np.diff(scales).min() < 0 < np.diff(scales).max()  # the scale is set back too


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    logit_B, loss_B = rng.normal(size=9).astype(np.float32), rng.gamma(1.0, 1.0, 9).astype(np.float32)
    mask_B = torch.tensor(logit_B, requires_grad=True)
    s_B, l_B = torch.sigmoid(1.7 * mask_B), torch.from_numpy(loss_B)
    ((l_B * s_B).mean() + (-(l_B + 1e-5).log() * s_B).mean() + 13 * (s_B.mean() - 0.4) ** 2).backward()
    assert soft(logit_B, 1.7) == pytest.approx(s_B.detach().numpy(), abs=1e-6)
    found_B = mask_gradient(loss_B, soft(logit_B, 1.7), 1.7, 13, 0.4)
    assert found_B == pytest.approx(mask_B.grad.numpy(), abs=1e-6)


@pytest.mark.parametrize(("keep", "low", "high"), [(0.3, 0.05, 0.2), (0.5, 0.2, 0.35), (0.8, 1.0, 1.0)])
def test_the_known_defect_the_ratio_is_missed_and_told(keep, low, high):
    method = made(keep)
    run(method, keep)
    verdict = method.verdict(samples(), None)
    assert low <= verdict.kept_N.mean() <= high
    share = verdict.kept_N.mean()
    assert method.alarms == [f"ratio missed: adaptive-released keeps {share:.3f} of the samples, asked for {keep:g}"]
    method.logit_N[:] = np.where(np.arange(SIZE) < keep * SIZE, 1, -1)
    assert method.verdict(samples(), None).kept_N.mean() == keep
    assert not method.alarms


def test_a_sample_that_comes_twice_in_a_batch_counts_twice():
    method = made(0.5)
    method.select(samples(), Progress(WARM_UP, 0.0, 0))
    method.step(np.array([3, 3, 4]), np.array([0.5, 0.5, 0.5], dtype=np.float32))
    decay = 0.1 * 5e-4
    moved_3, moved_4 = (1 - decay - method.logit_N[i] for i in (3, 4))
    assert moved_3 == pytest.approx(2 * moved_4, rel=1e-4)
    assert method.logit_N[5] == pytest.approx(1 - decay, abs=1e-7)


@pytest.mark.parametrize("stop", [0, 7, PER_EPOCH, 3 * PER_EPOCH + 11])
def test_a_saved_state_goes_on_the_same_in_the_midst_of_an_epoch(stop):
    whole, first, second = made(0.5), made(0.5), made(0.5)
    weights = run(whole, 0.5)
    start = run(first, 0.5, stop=stop)
    second.load_state_dict(load(dump(first.state_dict()), "state"))
    rest = run(second, 0.5, start=stop)
    assert [w.tobytes() for w in weights] == [w.tobytes() for w in start + rest]
    assert np.array_equal(whole.logit_N, second.logit_N)
