from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.semantics.audit import STRATA, calibrate, draw_audit, draw_strata, fit_steps
from secateur.semantics.consistency import LabelModel
from secateur.semantics.findings import Estimate, Findings
from secateur.streams import sample_keys

CLASSES = 4


def made(probability_wrong_N, seed=0):
    """Findings with given probabilities; labels are 0."""
    rng = np.random.default_rng(seed)
    size = len(probability_wrong_N)
    posterior_NC = rng.dirichlet(np.ones(CLASSES), size)
    posterior_NC[:, 0] = 0
    posterior_NC *= (probability_wrong_N / posterior_NC.sum(axis=1))[:, None]
    posterior_NC[:, 0] = 1 - probability_wrong_N
    nothing = {field.name: None for field in fields(LabelModel)}
    return Findings(
        probability_wrong_N,
        posterior_NC.argmax(axis=1).astype(np.int32),
        posterior_NC.astype(np.float16),
        1 - 2 * probability_wrong_N,
        {},
        {},
        Estimate(float(probability_wrong_N.mean()), 0, 1),
        0,
        None,
        np.zeros(size, np.float32),
        LabelModel(**nothing),
    )


def world(size=20_000, seed=0):
    """Probabilities that are too low by half in the odds, and what is in fact wrong."""
    rng = np.random.default_rng(seed)
    true_N = rng.beta(0.15, 1.0, size)
    shown_N = true_N / (true_N + 2 * (1 - true_N) + 1e-9)
    return shown_N, rng.random(size) < true_N


def test_an_audit_mends_the_rate_and_its_interval_holds_it():
    shown_N, wrong_N = world()
    findings, label_N, key_N = made(shown_N), np.zeros(len(shown_N), int), sample_keys(np.arange(len(shown_N)))
    assert wrong_N.mean() - shown_N.mean() > 0.02
    errors, covered = [], []
    for seed in range(60):
        position_A = draw_audit(findings, 200, key_N, seed)
        rate = calibrate(findings, label_N, position_A, wrong_N[position_A], seed).rate
        errors.append(rate.value - wrong_N.mean())
        covered.append(rate.low <= wrong_N.mean() <= rate.high)
    assert abs(np.mean(errors)) < 0.006
    assert np.std(errors) < 0.02
    assert np.mean(covered) >= 0.85


def test_calibrated_probabilities_keep_their_order_and_mean_what_they_say():
    shown_N, wrong_N = world()
    findings, label_N = made(shown_N), np.zeros(len(shown_N), int)
    position_A = draw_audit(findings, 2000, sample_keys(np.arange(len(shown_N))))
    after = calibrate(findings, label_N, position_A, wrong_N[position_A])
    order = np.argsort(shown_N, kind="stable")
    assert (np.diff(after.probability_wrong_N[order]) >= 0).all()
    for tenth in np.array_split(order, 10):
        assert after.probability_wrong_N[tenth].mean() == pytest.approx(wrong_N[tenth].mean(), abs=0.06)
    assert after.posterior_NC.astype(float).sum(axis=1) == pytest.approx(1, abs=4e-3)
    assert after.model.label_probability_N == pytest.approx(1 - after.probability_wrong_N)
    assert after.audited == 2000
    assert after.rate.value == pytest.approx(wrong_N.mean(), abs=0.02)


def test_whoever_stops_early_has_judged_all_strata_alike():
    shown_N, _ = world()
    key_N, stratum_N = sample_keys(np.arange(len(shown_N))), draw_strata(shown_N)
    position_A = draw_audit(made(shown_N), 200, key_N)
    assert len(np.unique(position_A)) == 200
    for judged in (20, 100, 200):
        assert (np.bincount(stratum_N[position_A[:judged]], minlength=STRATA) == judged // STRATA).all()
    assert np.array_equal(position_A, draw_audit(made(shown_N), 300, key_N)[:200])  # for more, one goes on
    assert np.array_equal(np.sort(draw_audit(made(shown_N[:30]), 30, key_N[:30])), np.arange(30))


def test_all_right_and_all_wrong_leave_doubt():
    shown_N, _ = world(2000)
    findings, label_N = made(shown_N), np.zeros(2000, int)
    position_A = draw_audit(findings, 200, sample_keys(np.arange(2000)))
    right = calibrate(findings, label_N, position_A, np.zeros(200, bool)).rate
    assert right.value == right.low == 0
    assert 0.005 < right.high < 0.03
    wrong = calibrate(findings, label_N, position_A, np.ones(200, bool)).rate
    assert wrong.value == wrong.high == 1
    assert 0.97 < wrong.low < 0.995


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_steps_rise_and_share_out_everything(judged, seed):
    rng = np.random.default_rng(seed)
    probability_N = rng.random(60)
    position_A = rng.permutation(60)[:judged]
    wrong_A = rng.random(judged) < 0.4
    share_S, wrong_S, count_S, value_S = fit_steps(probability_N, position_A, wrong_A)
    assert share_S.sum() == pytest.approx(1)
    assert (wrong_S.sum(), count_S.sum()) == (wrong_A.sum(), judged)
    assert (np.diff(value_S) > 0).all()
    assert ((value_S >= 0) & (value_S <= 1)).all()
    stratum_N = draw_strata(probability_N)
    assert (np.diff(stratum_N[np.argsort(probability_N)]) >= 0).all()


def test_wrong_input():
    findings = made(np.linspace(0, 1, 50))
    key_N, label_N = sample_keys(np.arange(50)), np.zeros(50, int)
    with pytest.raises(InputError, match="audit must be"):
        draw_audit(findings, 5, key_N)
    for position, wrong, words in (
        ([], [], "one judgement or more, got 0"),
        ([1], [True, False], "one judgement or more, got 2 of 1"),
        ([50], [True], r"samples in \[0, 50\), got 50"),
        ([3, 3], [True, True], "judge a sample once, got 2"),
    ):
        with pytest.raises(InputError, match=words):
            calibrate(findings, label_N, np.array(position, int), np.array(wrong, bool))


def test_a_label_that_is_wrong_is_not_suggested_again():
    wrong_N = np.linspace(0.3, 0.7, 100)
    findings, label_N = made(wrong_N), np.zeros(100, np.int64)
    position_A, judged_wrong_A = np.arange(0, 100, 5), np.arange(20) % 2 == 0
    told = calibrate(findings, label_N, position_A, judged_wrong_A)
    known_wrong_N = told.probability_wrong_N > 0.5
    known_wrong_N[position_A] = judged_wrong_A
    given_N = told.posterior_NC.argmax(axis=1) == 0
    assert (given_N & known_wrong_N).any()
    others_N = 1 + told.posterior_NC[:, 1:].argmax(axis=1)
    expected_N = np.where(known_wrong_N, others_N, told.posterior_NC.argmax(axis=1))
    assert np.array_equal(told.suggested_N, expected_N)
