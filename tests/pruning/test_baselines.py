import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.pruning.baselines.seta import loss_groups
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Semantics
from secateur.pruning.pruner import Pruner
from secateur.training.checkpoint import dump, load

SIZE, CLASSES, EPOCHS = 800, 5, 16
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, CLASSES, SIZE)
WRONG = RNG.random(SIZE) < 0.15
LABELS = np.where(WRONG, (TRUE + 1) % CLASSES, TRUE).astype(np.int32)
LOSSES = RNG.gamma(1.0, 0.5, SIZE).astype(np.float32)


def make_semantics() -> Semantics:
    logit_NC = RNG.normal(size=(SIZE, CLASSES))
    logit_NC[np.arange(SIZE), TRUE] += 5
    probability_NC = np.exp(logit_NC) / np.exp(logit_NC).sum(1, keepdims=True)
    return Semantics(
        np.log(probability_NC[np.arange(SIZE), LABELS]).astype(np.float32),
        np.where(WRONG, 0.1, 0.95).astype(np.float32),
        TRUE.astype(np.int32),
        probability_NC.astype(np.float16),
        probability_NC.astype(np.float16),
    )


SEMANTICS = make_semantics()
SCORES = {
    "el2n": RNG.random(SIZE).astype(np.float32),
    "forgetting": RNG.integers(0, 4, SIZE).astype(np.float32),
    "proxy": RNG.permuted(np.arange(EPOCHS * SIZE).reshape(EPOCHS, SIZE) % SIZE < SIZE // 2, axis=1),
}
BY_CHANCE = ["random", "random-annealed", "static-random", "gate-random", "confident", "relabel-random"]
FIXED = ["clip-threshold", "hardest", "el2n", "forgetting", "proxy"]  # no chance in them
STATIC = ["static-random", "clip-threshold", "el2n", "forgetting"]
UNBUDGETED = ["full", "relabel-full", "infobatch", "seta"]
ALL = [*BY_CHANCE, *FIXED, *UNBUDGETED]


def make_pruner(method, keep=0.5, seed=0, losses=LOSSES, **others):
    given = {"semantics": SEMANTICS, "scores": SCORES} | others
    pruner = Pruner(PruneConfig(method=method, keep=keep), None, LABELS, seed=seed, **given)
    if losses is not None:
        pruner.record(np.arange(SIZE), losses)
    return pruner


def run(pruner, epochs=EPOCHS, start=0, of=None, losses=None):
    """Losses change from epoch to epoch, as they do in training."""
    chosen = []
    for epoch in range(start, epochs):
        chosen.append(pruner.next_epoch(epoch, epoch / (of or epochs)))
        active = np.flatnonzero(chosen[-1].active_N)
        changed = np.random.default_rng(epoch).gamma(1.0, 0.5, SIZE).astype(np.float32) if losses is None else losses
        pruner.record(active, changed[active])
    return chosen


def same(one, other):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("active_N", "weight_N", "relabelled_N")
    )


@pytest.mark.parametrize("method", [m for m in BY_CHANCE + FIXED if m != "proxy"])
@pytest.mark.parametrize("keep", [0.05, 0.333, 0.6])
def test_every_epoch_and_the_mask_have_the_samples_asked_for(method, keep):
    pruner = make_pruner(method, keep)
    sizes = [int(s.active_N.sum()) for s in run(pruner)]
    annealed = 2 if method == "random-annealed" else 0
    assert sizes == [round(keep * SIZE)] * (EPOCHS - annealed) + [SIZE] * annealed
    mask = pruner.mask()
    assert mask.kept.sum() == round(keep * SIZE)
    assert not set(mask.reason[~mask.kept]) & {"kept", "floor", "relabelled"}
    assert set(mask.reason[mask.kept]) <= {"kept", "relabelled"}


@pytest.mark.parametrize("method", ALL)
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(method):
    one, again, other = (run(make_pruner(method, seed=seed)) for seed in (0, 0, 1))
    assert same(one, again)
    assert same(one, other) == (method in (*FIXED, "full", "relabel-full"))


@pytest.mark.parametrize("method", ALL)
def test_a_saved_state_goes_on_the_same(method):
    first, second = make_pruner(method), make_pruner(method, losses=None)
    run(first, epochs=7, of=EPOCHS)
    second.load_state_dict(load(dump(first.state_dict()), "a file"))
    assert same(run(second, start=7), run(make_pruner(method))[7:])
    run(first, start=7)
    assert second.mask().digest == first.mask().digest


@pytest.mark.parametrize("method", STATIC)
def test_static_sets_stay_whatever_the_losses_do(method):
    chosen = run(make_pruner(method))
    assert all(np.array_equal(s.active_N, chosen[0].active_N) for s in chosen)


@pytest.mark.parametrize("method", ["clip-threshold", "el2n", "forgetting"])
def test_a_resumed_run_does_not_choose_again(method):
    first = make_pruner(method)
    chosen = run(first, epochs=1, of=EPOCHS)[0]
    flipped = Semantics(-SEMANTICS.consistency_N, SEMANTICS.label_probability_N, SEMANTICS.suggested_N)
    scores = {name: -SCORES[name] for name in ("el2n", "forgetting")}
    second = make_pruner(method, semantics=flipped, scores=scores)
    second.load_state_dict(first.state_dict())
    assert np.array_equal(second.next_epoch(1, 1 / EPOCHS).active_N, chosen.active_N)


@pytest.mark.parametrize(
    ("method", "score_N"),
    [("clip-threshold", SEMANTICS.consistency_N), ("el2n", SCORES["el2n"]), ("forgetting", SCORES["forgetting"])],
)
def test_static_sets_are_the_top_of_their_score(method, score_N):
    pruner = make_pruner(method, 0.3)
    active_N = run(pruner)[0].active_N
    assert sorted(score_N[active_N]) == sorted(score_N)[-round(0.3 * SIZE) :]
    assert np.array_equal(pruner.mask().score, score_N)


def test_hardest_takes_the_largest_moving_averages_and_what_it_never_saw():
    losses, unseen = LOSSES.copy(), np.arange(20)
    pruner = make_pruner("hardest", 0.3, losses=None)
    for factor in (1, 3):
        pruner.record(np.arange(20, SIZE), factor * losses[20:])
    active_N = pruner.next_epoch(0, 0.0).active_N
    assert active_N[unseen].all()
    rest = np.argsort(-2 * losses[20:])[: round(0.3 * SIZE) - 20] + 20
    assert set(np.flatnonzero(active_N)) == {*unseen, *rest}


def test_chance_draws_evenly_and_anew():
    for method, among in [("random", np.ones(SIZE, bool)), ("gate-random", ~WRONG), ("relabel-random", ~WRONG | WRONG)]:
        drawn = np.mean([s.active_N for s in run(make_pruner(method, 0.5), epochs=300)], axis=0)
        assert not drawn[~among].any()
        assert drawn[among].std() < 0.035  # 0.029 is expected of 300 fair coins
        assert drawn.mean() == 0.5


def test_random_annealed_ends_with_everything():
    phases = [(s.phase, bool(s.active_N.all())) for s in run(make_pruner("random-annealed"))]
    assert phases == [("prune", False)] * 14 + [("anneal", True)] * 2


def slow_infobatch(loss_N):
    """The samples below the mean, how many of them stay, and their weight."""
    mean = sum(float(x) for x in loss_N) / len(loss_N)
    easy = {i for i, loss in enumerate(loss_N) if loss < mean}
    return easy, len(easy) // 2, 2.0


@given(st.lists(st.floats(0, 10, width=16), min_size=2, max_size=60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_infobatch_is_its_definition(losses, seed):
    loss_N = np.array(losses, dtype=np.float32)
    pruner = Pruner(PruneConfig(method="infobatch", keep=0.1), None, np.zeros(len(losses), int), seed=seed)
    pruner.record(np.arange(len(losses)), loss_N)
    chosen = pruner.next_epoch(0, 0.0)
    easy, stay, weight = slow_infobatch(loss_N)
    active = set(np.flatnonzero(chosen.active_N))
    assert active >= set(range(len(losses))) - easy
    assert len(active & easy) == stay
    assert {float(chosen.weight_N[i]) for i in active & easy} <= {weight}
    assert {float(chosen.weight_N[i]) for i in active - easy} <= {1.0}


def test_the_expected_gradient_of_infobatch_is_that_of_all_samples():
    """Over many seeds the rescaled sum of gradients has the mean and the spread of an even draw of half, doubled."""
    seeds, gradient_ND = 600, np.random.default_rng(1).normal(1.0, 2.0, (SIZE, 3)) * LOSSES[:, None]
    sums_SD = []
    for seed in range(seeds):
        chosen = make_pruner("infobatch", seed=seed).next_epoch(0, 0.0)
        sums_SD.append((chosen.weight_N[:, None] * gradient_ND)[chosen.active_N].sum(0))
    easy, stay, weight = slow_infobatch(LOSSES)
    easy_ND = gradient_ND[sorted(easy)]
    expected_D = gradient_ND.sum(0) - (1 - weight * stay / len(easy)) * easy_ND.sum(0)  # an odd one out is lost
    spread_D = weight * np.sqrt(stay * (1 - stay / len(easy)) * easy_ND.var(0, ddof=1))
    assert np.std(sums_SD, axis=0) == pytest.approx(spread_D, rel=0.15)
    assert (np.abs(np.mean(sums_SD, axis=0) - expected_D) < 4 * spread_D / np.sqrt(seeds)).all()
    assert len(easy) - weight * stay in (0, 1)


def test_infobatch_uses_last_losses():
    quarter_N = np.arange(SIZE) < SIZE // 4
    pruner = make_pruner("infobatch", losses=np.where(quarter_N, 1.0, 20.0).astype(np.float32))
    pruner.record(np.arange(SIZE), np.where(quarter_N, 5.0, 1.0).astype(np.float32))  # the averages are 3 and 10.5
    chosen = pruner.next_epoch(0, 0.0)
    assert chosen.active_N[quarter_N].all()
    assert chosen.active_N[~quarter_N].sum() == 3 * SIZE // 8


def test_infobatch_gives_a_loss_of_three_to_what_it_never_saw():
    pruner = make_pruner("infobatch", losses=None)
    assert pruner.next_epoch(0, 0.0).active_N.all()
    seen = np.arange(SIZE // 4, SIZE)
    losses = np.where(seen < SIZE // 2, 2.5, 1.0).astype(np.float32)
    pruner.record(seen, losses)  # the mean is 1.875; with 0 or 9 instead of 3 it would be 1.125 or 3.375
    chosen = pruner.next_epoch(1, 0.1)
    assert chosen.active_N[: SIZE // 2].all()
    assert chosen.active_N[SIZE // 2 :].sum() == SIZE // 4


@pytest.mark.parametrize("method", ["infobatch", "seta", "random-annealed"])
@pytest.mark.parametrize("epochs", [8, 16, 40])
def test_annealing_begins_after_seven_eighths_as_in_the_papers(method, epochs):
    """Epochs e = 1..E are pruned while e <= 0.875 E; here they are of equal length."""
    phases = [s.phase for s in run(make_pruner(method), epochs)]
    assert phases == ["prune" if e <= 0.875 * epochs else "anneal" for e in range(1, epochs + 1)]


def test_infobatch_ends_with_everything_at_weight_one():
    last = run(make_pruner("infobatch"))[-1]
    assert last.active_N.all()
    assert last.weight_N is None


def slow_seta(drawn, group_N, turn, groups=5, span=0.9):
    """Those of a draw whose group the window shows."""
    if turn == 0:
        return set(drawn)
    size = round(groups * span)
    places = list(range(groups - size + 1))
    start = places[turn % len(places)]
    return {i for i in drawn if group_N[i] in range(start, start + size)}


def test_seta_slides_a_window_over_groups_of_loss():
    """Five bundles of losses far apart leave k-means no choice."""
    group_N = RNG.integers(0, 5, SIZE)
    losses = (np.array([0.1, 1.0, 2.5, 5.0, 9.0])[group_N] + RNG.normal(0, 0.01, SIZE)).astype(np.float32)
    chosen = run(make_pruner("seta", losses=losses), losses=losses)
    even = run(make_pruner("random", keep=0.9))  # the same stream draws the subset
    for turn, (got, subset) in enumerate(zip(chosen, even, strict=True)):
        assert subset.active_N.sum() == int(0.9 * SIZE)
        drawn = np.flatnonzero(subset.active_N)
        expected = slow_seta(drawn, group_N, turn) if turn < 14 else set(drawn)
        assert set(np.flatnonzero(got.active_N)) == expected
        assert got.weight_N is None


def test_loss_groups_are_in_order_and_the_best():
    loss_N = np.sort(LOSSES[:120])
    group_N = loss_groups(loss_N, 3)
    assert (np.diff(group_N) >= 0).all()
    assert set(group_N) == {0, 1, 2}

    def spread(cuts):
        return sum(((part - part.mean()) ** 2).sum() for part in np.split(loss_N, cuts) if len(part))

    best = min(spread((a, b)) for a in range(1, 119) for b in range(a + 1, 120))
    assert spread(np.flatnonzero(np.diff(group_N)) + 1) <= 1.001 * best
    assert loss_groups(np.ones(9, np.float32), 5).tolist() == [0] * 9
    assert loss_groups(np.array([2, 1, 2], np.float32), 5).tolist() == [1, 0, 1]


def test_loss_groups_are_no_worse_than_those_of_scikit_learn():
    from sklearn.cluster import KMeans

    loss_N = np.random.default_rng(3).lognormal(-2, 2, 5000).clip(0, 20).astype(np.float32)
    group_N = loss_groups(loss_N, 5)
    ours = sum(((loss_N[group_N == g] - loss_N[group_N == g].mean()) ** 2).sum() for g in range(5))
    assert ours <= 1.001 * KMeans(5, n_init=5, random_state=0).fit(loss_N[:, None]).inertia_


def test_proxy_follows_the_marks_of_its_epoch():
    chosen = run(make_pruner("proxy"), epochs=EPOCHS + 2)
    assert np.array_equal([s.active_N for s in chosen[:EPOCHS]], SCORES["proxy"])
    assert all(np.array_equal(s.active_N, SCORES["proxy"][-1]) for s in chosen[EPOCHS:])


def test_the_gate_leaves_out_what_is_probably_wrong_and_says_so():
    pruner = make_pruner("gate-random")
    assert not any((s.active_N & WRONG).any() for s in run(pruner))
    mask = pruner.mask()
    assert np.array_equal(mask.reason == "inconsistent", WRONG)
    assert set(mask.reason[~mask.kept & ~WRONG]) == {"unused"}
    short = make_pruner("gate-random", 0.95)
    assert np.array_equal(run(short)[0].active_N, ~WRONG)
    assert "keep 0.95 is out of reach" in short.alarms[0]


@pytest.mark.parametrize("method", ["relabel-random", "relabel-full"])
def test_relabelling_keeps_what_is_probably_wrong(method):
    pruner = make_pruner(method)
    assert all(np.array_equal(s.relabelled_N, WRONG) for s in run(pruner))
    mask = pruner.mask()
    assert np.array_equal(mask.reason == "relabelled", WRONG & mask.kept)
    assert mask.kept.mean() == (1.0 if method == "relabel-full" else 0.5)


def test_confident_is_cleanlab_and_chance():
    from cleanlab.filter import find_label_issues

    found = find_label_issues(LABELS, SEMANTICS.probability_NC.astype(float), filter_by="prune_by_noise_rate", n_jobs=1)
    assert found[WRONG].mean() > 0.9
    assert found[~WRONG].mean() < 0.05
    pruner = make_pruner("confident", 0.5)
    drawn = np.mean([s.active_N for s in run(pruner, epochs=300)], axis=0)
    assert not drawn[found].any()
    assert drawn[~found].std() < 0.035
    assert np.array_equal(pruner.mask().reason == "inconsistent", found)


def test_confident_says_what_it_lacks(monkeypatch):
    bare = Semantics(SEMANTICS.consistency_N, SEMANTICS.label_probability_N, SEMANTICS.suggested_N)
    with pytest.raises(InputError, match="method 'confident' must have probability_NC in its semantics, got none"):
        make_pruner("confident", semantics=bare).next_epoch(0, 0.0)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(
        InputError, match=r"must have cleanlab, got none: install it with `pip install 'secateur\[clean"
    ):
        make_pruner("confident").next_epoch(0, 0.0)


@pytest.mark.parametrize(
    ("method", "lack"), [("gate-random", "semantics"), ("el2n", "the score 'el2n'"), ("proxy", "the score 'proxy'")]
)
def test_what_a_method_needs_must_be_there(method, lack):
    with pytest.raises(InputError, match=f"method {method!r} must have {lack}"):
        make_pruner(method, semantics=None, scores=None)
