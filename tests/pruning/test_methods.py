from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from scipy.optimize import minimize

from secateur.errors import InputError
from secateur.pruning.adaptive import Pace, pressure
from secateur.pruning.alarms import restless
from secateur.pruning.budget import kept_fraction
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Semantics
from secateur.pruning.methods import METHODS
from secateur.pruning.multimodal import move
from secateur.pruning.pruner import Pruner
from secateur.pruning.selection import rank, soft_mask

SIZE = 1000
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, SIZE).astype(np.int32)
LOSSES = RNG.gamma(1.0, 0.5, SIZE).astype(np.float32)
PROBABILITY = np.where(RNG.random(SIZE) < 0.12, 0.1, 0.95)
CONSISTENCY = np.log(RNG.random(SIZE))
POSTERIOR = np.eye(5, dtype=np.float16)[LABELS]
SEMANTICS = Semantics(CONSISTENCY, PROBABILITY, LABELS, POSTERIOR, probability_NC=POSTERIOR)
SCORES = {"el2n": LOSSES, "forgetting": LOSSES, "proxy": RNG.random((600, SIZE)) < 0.5}
# These keep what they find right; `keep` sets their budget alone.
OWN_SHARE = {"full", "relabel-full", "random-annealed", "infobatch", "seta", "proxy", "adaptive-released"}


def make_pruner(method, keep=0.6, seed=0, **settings):
    config = PruneConfig(method=method, keep=keep, **settings)
    ids = [str(i) for i in range(SIZE)]
    pruner = Pruner(config, ids, LABELS, seed=seed, semantics=SEMANTICS, scores=SCORES)
    pruner.record(np.arange(SIZE), LOSSES)
    return pruner


def run(pruner, epochs=12, losses=LOSSES, validation=lambda epoch: None):
    chosen = []
    for epoch in range(epochs):
        selection = pruner.next_epoch(epoch, epoch / epochs, validation(epoch))
        active = np.flatnonzero(selection.active_N)
        pruner.record(active, losses[active])
        chosen.append(selection)
    return chosen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keep", [0.05, 0.333, 0.7, 1.0])
def test_all_masks_end_at_the_requested_ratio(method, keep):
    pruner = make_pruner(method, keep, gate=0.0)
    for selection in run(pruner):
        share = pruner.verdict().kept_N.mean()
        assert 0 < selection.active_N.mean() <= 1
        if method not in OWN_SHARE:
            assert abs(share - keep) <= 0.001
        if selection.weight_N is not None and method != "infobatch":
            assert selection.weight_N[selection.active_N].mean() == pytest.approx(1, abs=1e-3)
    mask = pruner.mask()
    assert mask.meta["keep_achieved"] == mask.kept.mean()
    assert set(mask.reason[mask.kept]) <= {"kept", "floor", "relabelled"}
    assert not set(mask.reason[~mask.kept]) & {"kept", "floor", "relabelled"}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_masks_and_another_seed_others(method):
    one, same, other = (run(make_pruner(method, seed=seed)) for seed in (0, 0, 1))
    for a, b in zip(one, same, strict=True):
        assert np.array_equal(a.active_N, b.active_N)
    differ = any(not np.array_equal(a.active_N, b.active_N) for a, b in zip(one, other, strict=True))
    without_chance = {
        "full", "relabel-full", "hardest", "el2n", "forgetting", "clip-threshold", "adaptive", "adaptive-released",
        "proxy",
    }  # fmt: skip
    assert differ == (method not in without_chance)


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_state_goes_on_the_same(method):
    whole = run(make_pruner(method), validation=lambda epoch: 1.0 + epoch % 3)
    first, second = make_pruner(method), make_pruner(method)
    for epoch, before in enumerate(whole):
        pruner = first if epoch < 7 else second
        if epoch == 7:
            second.load_state_dict(first.state_dict())
        selection = pruner.next_epoch(epoch, epoch / 12, 1.0 + epoch % 3)
        active = np.flatnonzero(selection.active_N)
        pruner.record(active, LOSSES[active])
        assert np.array_equal(selection.active_N, before.active_N)
    assert len(second.trajectory) == 12
    whole_mask = (pruner := make_pruner(method)) and run(pruner, validation=lambda epoch: 1.0 + epoch % 3) and pruner
    assert second.mask().digest == whole_mask.mask().digest


def test_random_draws_evenly_and_anew():
    drawn = np.mean([s.active_N for s in run(make_pruner("random", 0.5), epochs=400)], axis=0)
    assert drawn.mean() == 0.5
    assert abs(drawn - 0.5).max() < 0.12  # 4.8 standard deviations of 400 fair coins


def test_pressure_by_hand():
    loss_N = np.array([0.1, 1.0, 3.0])
    raw = 2 * loss_N - 3 * np.log(loss_N + 1e-5)
    found = pressure(loss_N, 2, 3)
    assert found == pytest.approx((raw - raw.mean()) / raw.std())
    assert pressure(np.ones(4), 1, 1).tolist() == [0, 0, 0, 0]


def test_adaptive_drops_the_easy_and_the_hopeless():
    """With both weights 1 the pressure is least at a loss of 1."""
    pruner = make_pruner("adaptive", 0.5, class_floor=0.0, classification_weight=1.0)
    mask = run(pruner) and pruner.mask()
    push = LOSSES - np.log(LOSSES + 1e-5)
    assert push[mask.kept].max() <= push[~mask.kept].min() + 1e-6
    assert set(mask.reason[~mask.kept & (np.median(LOSSES) >= LOSSES)]) == {"redundant"}


@pytest.mark.parametrize(("a", "b", "kept"), [(1, 0, "easiest"), (0, 1, "hardest")])
def test_each_force_alone(a, b, kept):
    pruner = make_pruner("adaptive", 0.3, classification_weight=a, selection_weight=b, class_floor=0.0)
    run(pruner)
    order = np.argsort(LOSSES)
    expected = order[:300] if kept == "easiest" else order[-300:]
    assert set(np.flatnonzero(pruner.mask().kept)) == set(expected)


def test_the_pace_walks_waits_and_arrives():
    calm = Pace(ramp=0.5, tolerance=0.05)
    assert [calm.step(t, 1.0) for t in (0.0, 0.25, 0.5, 0.75)] == [0, 0.5, 1, 1]
    worse = Pace(ramp=0.5, tolerance=0.05)
    positions = [worse.step(t, loss) for t, loss in [(0.0, 1.0), (0.1, 1.0), (0.2, 1.2), (0.3, 1.04)]]
    assert positions == pytest.approx([0, 0.2, 0, 0.2])
    assert worse.waits == 1
    hopeless = Pace(ramp=0.5, tolerance=0.05)
    walk = [hopeless.step(t / 20, 1.0 + t) for t in range(20)]
    assert walk[18] == 1  # the deadline, at 0.9
    assert max(walk[:9]) < 0.3


def test_adaptive_keeps_more_while_it_walks():
    shares = [s.active_N.mean() for s in run(make_pruner("adaptive", 0.4, ramp=0.5))]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.4


def test_multimodal_gates_out_probably_wrong_labels():
    pruner = make_pruner("multimodal", 0.7)
    for selection in run(pruner):
        assert not selection.active_N[PROBABILITY < 0.5].any()
    mask = pruner.mask()
    assert set(np.flatnonzero(mask.reason == "inconsistent")) == set(np.flatnonzero(PROBABILITY < 0.5))
    assert mask.score[PROBABILITY < 0.5].max() < mask.score[PROBABILITY >= 0.5].min()


def test_the_gate_wins_against_keep():
    pruner = make_pruner("multimodal", 0.95)
    run(pruner)
    assert pruner.mask().kept.mean() == (PROBABILITY >= 0.5).mean()
    assert "keep 0.95 is out of reach" in pruner.alarms[0]


def test_multimodal_converges_to_its_closed_form():
    """A fixed value v takes the logits to v, and the kept set to the top of v."""
    pruner = make_pruner("multimodal", 0.5, gate=0.0, class_floor=0.0, annealing=0.0, semantic_weight=0.7)
    key_N = pruner.samples.key_N
    chosen = run(pruner, epochs=60)
    value_N = rank(LOSSES, key_N) + 0.7 * rank(CONSISTENCY, key_N)
    verdict = pruner.verdict()
    assert verdict.score_N == pytest.approx(value_N, abs=1e-5)
    assert len(set(np.flatnonzero(verdict.kept_N)) ^ set(np.argsort(-value_N)[:500])) <= 2  # ranks are singles
    agreement = [(s.active_N & verdict.kept_N).sum() / 500 for s in chosen]
    assert agreement[0] < 0.9
    assert agreement[-1] > 0.98


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_step_is_the_maximiser_of_the_mirror_descent_objective(rate):
    value_N, before_N = (np.random.default_rng(i).random(5).astype(np.float32) for i in (1, 2))
    scale, total = 4.0, 2.0
    before, _ = soft_mask(before_N, scale, total)
    found, _ = soft_mask(move(before_N, value_N, rate), scale, total)

    def entropy(s, other):
        return (s * np.log(other) + (1 - s) * np.log(1 - other)).sum()

    def objective(s):
        gain = rate * scale * (s @ value_N) - rate * entropy(s, s)
        return -(gain - (1 - rate) * (entropy(s, s) - entropy(s, before)))

    best = minimize(
        objective,
        np.full(5, total / 5),
        bounds=[(1e-9, 1 - 1e-9)] * 5,
        constraints={"type": "eq", "fun": lambda s: s.sum() - total},
        options={"ftol": 1e-14},
    )
    assert found == pytest.approx(best.x, abs=1e-4)


def test_hard_and_consistent_samples_survive():
    pruner = make_pruner("multimodal", 0.3, gate=0.0)
    run(pruner)
    key_N = pruner.samples.key_N
    both = (rank(LOSSES, key_N) > 0.8) & (rank(CONSISTENCY, key_N) > 0.8)
    assert both.sum() > 10
    assert pruner.mask().kept[both].all()


def test_annealing_draws_evenly_from_what_the_gate_accepts():
    pruner = make_pruner("multimodal", 0.5, annealing=0.25)
    chosen = run(pruner, epochs=400)
    assert [s.phase for s in chosen] == ["prune"] * 300 + ["anneal"] * 100
    drawn = np.mean([s.active_N for s in chosen[300:]], axis=0)
    accepted = PROBABILITY >= 0.5
    assert not drawn[~accepted].any()
    assert drawn[accepted].std() < 0.06  # 0.05 is expected of 100 even draws
    pruner = make_pruner("multimodal", 0.5, annealing=0.25)
    for epoch in range(400):
        kept_N = pruner.next_epoch(epoch, epoch / 400) and pruner.verdict().kept_N
        if epoch == 299:
            last = kept_N
    assert np.array_equal(kept_N, last)


@pytest.mark.parametrize("method", ["adaptive", "multimodal"])
def test_the_class_floor_holds(method):
    """One class has no loss left; without a floor it would vanish."""
    losses = np.where(LABELS == 0, 1e-4, LOSSES + 0.5).astype(np.float32)
    consistency = np.where(LABELS == 0, -50.0, CONSISTENCY)
    count_C = np.bincount(LABELS)
    for floor in (0.0, 0.5):
        config = PruneConfig(method=method, keep=0.4, class_floor=floor, gate=0.0)
        semantics = Semantics(consistency, PROBABILITY, LABELS)
        pruner = Pruner(config, [str(i) for i in range(SIZE)], LABELS, semantics=semantics)
        pruner.record(np.arange(SIZE), losses)
        run(pruner, losses=losses)
        mask = pruner.mask()
        kept_C = np.bincount(LABELS[mask.kept], minlength=5)
        assert kept_C[0] == int(floor * 0.4 * count_C[0])
        assert (mask.reason == "floor").sum() == kept_C[0]


def test_wrong_settings():
    with pytest.raises(InputError, match=r"method must be one of adaptive, .* got 'best'"):
        make_pruner("best")
    with pytest.raises(InputError, match="method 'multimodal' must have semantics, got none"):
        Pruner(PruneConfig(), ["a"], [0])
    with pytest.raises(InputError, match="labels must be one for each of one or more samples, got 1 for 2"):
        Pruner(PruneConfig(method="random"), ["a", "b"], [0])
    for wrong in ({"keep": 0}, {"keep": 1.4}, {"epochs": 1}, {"rate": 0}, {"gate": 1}, {"annealing": 0.9}, {"ramp": 0}):
        with pytest.raises(InputError, match=f"^{next(iter(wrong))} must be in"):
            PruneConfig(**wrong)
    with pytest.raises(InputError, match="scale_end must be at least scale_start"):
        PruneConfig(scale_start=4, scale_end=1)


def test_every_setting_matters():
    """An option that changes nothing should not be there."""
    others = {
        "keep": 0.5, "class_floor": 1.0, "rate": 0.2, "scale_start": 1.0, "scale_end": 10.0, "gate": 0.0,
        "relabel": True, "difficulty_weight": 0.1, "semantic_weight": 0.1, "curve": 0.5, "annealing": 0.5,
        "classification_weight": 0.0, "selection_weight": 0.0, "ramp": 0.3, "tolerance": 9.0,
    }  # fmt: skip
    elsewhere = {"method", "epochs", "semantics", "retrain"}  # see the tests of training
    assert set(others) | elsewhere == {f.name for f in fields(PruneConfig)}

    def outcome(**settings):
        return [
            [None if part is None else part.tobytes() for part in (s.active_N, s.weight_N, s.relabelled_N)]
            for method in ("adaptive", "multimodal")
            for s in run(make_pruner(method, **settings), validation=lambda epoch: 1.0 + epoch % 4)
        ]

    plain = outcome()
    for name, value in others.items():
        assert outcome(**{name: value}) != plain, name


def test_relabelling_keeps_what_the_gate_would_refuse():
    pruner = make_pruner("multimodal", 0.95, relabel=True, class_floor=0.0)
    for selection in run(pruner):
        assert np.array_equal(selection.relabelled_N, PROBABILITY < 0.5)
        assert selection.active_N.sum() == 950
    mask = pruner.mask()
    assert not pruner.alarms
    assert (mask.reason[mask.kept & (PROBABILITY < 0.5)] == "relabelled").all()
    assert (mask.reason[~mask.kept & (PROBABILITY < 0.5)] == "inconsistent").all()


@checked(deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0, 0.95), st.sampled_from([0.0, 0.125, 0.3]))
def test_a_curve_has_as_many_epochs_as_keeping_evenly(keep, curve, annealing):
    """Epochs are walked one by one, each as large as the curve says, until the budget of 400 even epochs is spent."""
    epochs, spent = 0, 0.0
    sizes = []
    while spent < 400 * keep - 1e-9:
        sizes.append(kept_fraction(spent / (400 * keep), keep, curve, annealing))
        spent += sizes[-1]
        epochs += 1
    assert epochs == pytest.approx(400, rel=0.02)
    if curve > 0.1 and keep < 0.5:
        assert sizes[0] > sizes[epochs // 2]


def test_alarms():
    keep_half = {"keep": 0.5, "class_floor": 0.0}
    label_N = np.where(PROBABILITY < 0.5, 5, LABELS)  # a class that the gate refuses whole
    ids = [str(i) for i in range(SIZE)]
    doubtful = Pruner(PruneConfig(keep=0.95), ids, label_N, semantics=SEMANTICS)
    doubtful.next_epoch(0, 0.0)
    assert "the gate accepts no sample of class 5" in doubtful.alarms[1]
    lost = Pruner(PruneConfig(**keep_half), ids, LABELS, semantics=replace(SEMANTICS, fits=False))
    lost.record(np.arange(SIZE), LOSSES)
    run(lost, epochs=40)
    assert "a CLIP that does not fit" in lost.alarms[0]
    hardest = np.argsort(np.where(PROBABILITY < 0.5, -1, LOSSES))[-500:]
    assert set(np.flatnonzero(lost.verdict().kept_N)) == set(hardest)  # consistency is left out
    even = Pruner(PruneConfig(**keep_half, scale_end=0.1, scale_start=0.1), ids, LABELS, semantics=SEMANTICS)
    even.record(np.arange(SIZE), LOSSES)
    run(even)
    assert any("do not discriminate" in alarm for alarm in even.alarms)
    tilted = Pruner(PruneConfig(**keep_half, semantic_weight=50.0), ids, LABELS, semantics=SEMANTICS)
    tilted.record(np.arange(SIZE), LOSSES)
    run(tilted)
    assert any("terms out of balance" in alarm for alarm in tilted.alarms)
    assert not make_pruner("multimodal").alarms


@pytest.mark.parametrize("method", ["multimodal", "adaptive", "random"])
def test_a_learned_choice_that_does_not_come_to_rest_raises_an_alarm(method):
    def churned(losses):
        pruner = make_pruner(method, 0.3, rate=1.0, gate=0.0, semantic_weight=0.0, class_floor=0.0, annealing=0.0)
        for epoch in range(12):
            pruner.next_epoch(epoch, epoch / 12, 1.0)
            pruner.record(np.arange(SIZE), losses(epoch))
        return any(alarm.startswith("churn") for alarm in pruner.alarms)

    def fresh(epoch):  # so much larger each time that the moving average forgets
        return (np.random.default_rng(epoch).random(SIZE) * 9**epoch).astype(np.float32)

    assert churned(fresh) == (method != "random")
    assert not churned(lambda epoch: LOSSES)


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 10_000))
def test_restless_counts_as_sets_do(size, count, seed):
    rng = np.random.default_rng(seed)
    before, now = (set(rng.choice(size, min(size, n), replace=False).tolist()) for n in (count, max(1, count // 2)))
    packed = [np.packbits(np.isin(np.arange(size), list(chosen))) for chosen in (before, now)]
    chance = 1 - len(before) / size
    assert restless(*packed, size) == (chance > 0 and len(now - before) > 0.9 * len(now) * chance)
