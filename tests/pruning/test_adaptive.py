import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from secateur.pruning.adaptive import Adaptive, descend, pressure, weights
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses
from secateur.pruning.method import CODE, Progress, Reason, Samples
from secateur.pruning.pace import DEADLINE, Pace, overdue, worsened
from secateur.pruning.selection import soft_mask
from secateur.streams import sample_keys

SIZE = 1000
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, SIZE).astype(np.int32)
LOSSES = RNG.gamma(1.0, 0.5, SIZE).astype(np.float32)
KEYS = sample_keys(np.arange(SIZE))


def samples(loss_N=LOSSES):
    losses = SampleLosses(SIZE)
    if loss_N is not None:
        losses.record(np.arange(SIZE), loss_N)
        losses.settle()
    return Samples(KEYS, LABELS, losses)


def made(**fields):
    return Adaptive(PruneConfig(**{"method": "adaptive", "keep": 0.4, "epochs": 20} | fields))


def walk(method, table, epochs=20, loss=lambda epoch: 1.0):
    return [method.select(table, Progress(epoch, epoch / epochs, 0, loss(epoch))) for epoch in range(epochs)]


@settings(deadline=None)
@given(st.floats(0, 5), st.floats(0, 5), st.integers(0, 50))
def test_the_pressure_is_the_standardised_gradient(a, b, seed):
    loss_N = np.random.default_rng(seed).gamma(1.0, 1.0, 40)
    raw = [a * loss - b * float(np.log(loss + 1e-5)) for loss in loss_N]
    mean = sum(raw) / 40
    spread = (sum((g - mean) ** 2 for g in raw) / 40) ** 0.5
    found_N = pressure(loss_N, a, b)
    assert found_N.dtype == np.float32
    if spread > 0.1:  # where float32 has digits left
        assert found_N == pytest.approx((np.array(raw) - mean) / spread, abs=1e-3)


@pytest.mark.parametrize(("a", "b", "sign"), [(1, 0, 1), (0, 1, -1)])
def test_each_force_taken_out_leaves_the_other(a, b, sign):
    push_N = pressure(LOSSES, a, b)
    assert (np.diff(sign * push_N[np.argsort(LOSSES)]) >= 0).all()
    assert not pressure(LOSSES, 0, 0).any()


def test_a_steady_pressure_takes_the_logits_to_its_negative():
    push_N, logit_N = pressure(LOSSES, 1, 1), None
    for step in range(1, 12):
        logit_N = descend(logit_N, push_N, 0.3)
        assert logit_N == pytest.approx(-(1 - 0.7**step) * push_N, abs=1e-5)  # the geometric series
    assert descend(logit_N, push_N, 1.0) == pytest.approx(-push_N)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 50))
def test_the_weighted_mean_loss_is_that_of_the_soft_mask(active, seed):
    rng = np.random.default_rng(seed)
    soft_N, loss_N = rng.uniform(0.01, 1, 40), rng.gamma(1.0, 1.0, 40)
    active_N = rng.permutation(40) < active
    weight_N = weights(soft_N, active_N)
    wanted = (soft_N * loss_N)[active_N].sum() / soft_N[active_N].sum()
    assert (weight_N * loss_N)[active_N].mean() == pytest.approx(wanted, rel=1e-4)
    assert not weight_N[~active_N].any()


def test_worse_by_more_than_the_tolerance():
    assert not worsened(5.0, float("inf"), 0.05)
    assert not worsened(1e9, 1.0, float("inf"))
    assert not worsened(1.0, 1.0, 0.0)
    assert worsened(1.001, 1.0, 0.0)


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_overdue_position_never_falls_and_ends_at_the_deadline(ramp, one, other):
    early, late = sorted((one, other))
    assert 0 <= overdue(early, ramp) <= overdue(late, ramp) <= 1
    assert overdue(max(DEADLINE, late), ramp) == 1
    assert overdue(min(ramp, DEADLINE / 2), ramp) == 0


@settings(deadline=None)
@given(
    st.floats(0.05, 1), st.floats(0, 0.5), st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=20, max_size=20)
)
def test_the_pace_arrives_whatever_the_model_does(ramp, tolerance, losses):
    pace, before = Pace(ramp, tolerance), 0.0
    for epoch, loss in enumerate(losses):
        worse = worsened(loss, pace.best, tolerance)
        position = pace.step(epoch / 20, loss)
        assert overdue(epoch / 20, ramp) <= position <= 1
        if worse and before < 1:
            assert position <= max(before, overdue(epoch / 20, ramp))
        else:
            assert position >= before
        before = position
    assert before == 1
    assert pace.best == min([loss for loss in losses if loss is not None], default=float("inf"))


def test_without_a_tolerance_the_pace_is_the_ramp():
    pace = Pace(0.5, float("inf"))
    assert [pace.step(t / 10, 1.0 + t) for t in range(8)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert pace.waits == 0


def slow_soft_mask(logit_N, alpha, total):
    """The soft mask whose sum is the budget, by another solver."""

    def soft(mu):
        return 1 / (1 + np.exp(-np.clip(alpha * (logit_N.astype(float) - mu), -700, 700)))

    return soft(brentq(lambda mu: soft(mu).sum() - total, -50, 50, xtol=1e-14))


@pytest.mark.parametrize("floor", [0.0, 0.8])
@pytest.mark.parametrize("tolerance", [0.05, float("inf")])
def test_ratio_floor_and_budget_are_exact_at_every_update(floor, tolerance):
    losses = np.where(LABELS == 0, np.float32(1e-3), LOSSES)  # one class has nothing to teach
    table, method = samples(losses), made(class_floor=floor, tolerance=tolerance)
    count_C = np.bincount(LABELS)
    shares = []
    for epoch in range(20):
        chosen = method.select(table, Progress(epoch, epoch / 20, 0, 1.0 + (epoch in (4, 5))))
        now = 1 - 0.6 * method.pace.position
        assert chosen.active_N.sum() == round(now * SIZE)
        kept_C = np.bincount(LABELS[chosen.active_N], minlength=5)
        assert (kept_C >= np.floor(floor * now * count_C)).all()
        if now < 1:
            soft_N = slow_soft_mask(method.logit_N, 4.0 * 100.0**method.pace.position, now * SIZE)
            wanted_N = np.where(chosen.active_N, soft_N / soft_N[chosen.active_N].mean(), 0)
            assert chosen.weight_N == pytest.approx(wanted_N, abs=1e-4)
        else:
            assert (chosen.weight_N == 1).all()
        shares.append(now)
    assert shares[-1] == pytest.approx(0.4)
    fell = shares == sorted(shares, reverse=True)
    assert fell == (tolerance == float("inf"))
    verdict = method.verdict(table, chosen)
    assert verdict.kept_N.sum() == 400
    assert (verdict.reason_N == CODE[Reason.FLOOR]).sum() == int(floor * 0.4 * count_C[0])


@settings(deadline=None)
@given(st.integers(0, 100), st.sampled_from([4.0, 40.0, 400.0, 4000.0]), st.floats(0.02, 0.98), st.booleans())
def test_single_precision_is_enough_for_the_budget_also_where_half_of_the_logits_are_tied(seed, alpha, share, tied):
    logit_N = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    if tied:
        logit_N[: SIZE // 2] = 3 * logit_N[0]
    soft_N, _ = soft_mask(logit_N, alpha, share * SIZE)
    assert soft_N.sum() == pytest.approx(share * SIZE, rel=1e-6)
    assert soft_N == pytest.approx(slow_soft_mask(logit_N, alpha, share * SIZE), abs=1e-2)


def test_every_wait_is_logged_and_many_raise_an_alarm(caplog):
    method = made()
    with caplog.at_level(logging.INFO, "secateur"):
        walk(method, samples(), loss=lambda epoch: 2.0 if epoch in (3, 5, 7) else 1.0)
    waits = [r.message for r in caplog.records if "waits" in r.message]
    assert waits == [f"pruning waits at epoch {epoch}: validation loss 2.000" for epoch in (3, 5, 7)]
    assert method.pace.waits == 3
    assert [text.split(":")[0] for text in method.alarms] == ["over-pruning"]


def test_alarms():
    blind = made()
    walk(blind, samples(), loss=lambda epoch: None)
    assert [text.split(":")[0] for text in blind.alarms] == ["blind pace"]
    off = made(tolerance=float("inf"))
    walk(off, samples(), loss=lambda epoch: None)
    assert off.alarms == []
    lopsided = made(classification_weight=100.0)
    walk(lopsided, samples())
    assert lopsided.alarms[0].startswith("forces out of balance")
    alike = made()
    walk(alike, samples(np.ones(SIZE, dtype=np.float32)))
    assert alike.alarms[0].startswith("the mask does not discriminate")


def test_without_a_warm_up_it_begins_with_everything():
    method = made()
    first = method.select(samples(None), Progress(0, 0.0, 0, None))
    assert first.active_N.all()
    assert (first.weight_N == 1).all()


def test_a_sample_of_the_middle_is_kept():
    """With both forces the pressure is least where the loss is b / a."""
    for a, b in ((1.0, 1.0), (4.0, 1.0), (1.0, 2.0)):
        method = made(classification_weight=a, selection_weight=b, class_floor=0.0, keep=0.1)
        table = samples()
        kept_N = method.verdict(table, walk(method, table)[-1]).kept_N
        assert LOSSES[kept_N].min() <= b / a <= LOSSES[kept_N].max()
        push_N = a * LOSSES - b * np.log(LOSSES + 1e-5)
        assert push_N[kept_N].max() <= push_N[~kept_N].min() + 1e-5


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 19))
def test_a_saved_state_goes_on_the_same(stop):
    def loss(epoch):
        return 1.0 + epoch % 3

    table, whole, first, second = samples(), made(), made(), made()
    wanted = walk(whole, table, loss=loss)
    for epoch in range(stop):
        first.select(table, Progress(epoch, epoch / 20, 0, loss(epoch)))
    second.load_state_dict(first.state_dict())
    for epoch in range(stop, 20):
        found = second.select(table, Progress(epoch, epoch / 20, 0, loss(epoch)))
        assert np.array_equal(found.active_N, wanted[epoch].active_N)
        assert np.array_equal(found.weight_N, wanted[epoch].weight_N)
    assert second.alarms == whole.alarms
