import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from secateur.errors import InputError
from secateur.semantics.findings import margins
from secateur.semantics.mixture import fit_mixture
from secateur.semantics.probe import draw_folds, fit_probe, probe_probability
from secateur.semantics.signals import find_wrong_labels, scaled, shifted, weighted
from secateur.streams import sample_keys

CLASSES = 5


def scene(samples=1500, noise=0.15, width=16, spread=0.45, seed=0):
    """Pictures around the texts of their classes, given labels, and which are wrong."""
    rng = np.random.default_rng(seed)
    text_CD = np.linalg.qr(rng.normal(size=(width, CLASSES)))[0].T
    true_N = rng.integers(0, CLASSES, samples)
    image_ND = text_CD[true_N] + spread * rng.normal(size=(samples, width))
    wrong_N = rng.random(samples) < noise
    label_N = np.where(wrong_N, (true_N + rng.integers(1, CLASSES, samples)) % CLASSES, true_N)
    return image_ND, label_N, text_CD, wrong_N


@pytest.fixture(scope="module")
def found():
    image_ND, label_N, text_CD, wrong_N = scene()
    return find_wrong_labels(image_ND, label_N, text_CD, classes=CLASSES), label_N, wrong_N


def test_wrong_labels_are_found_and_counted(found):
    findings, _, wrong_N = found
    auroc = {name: roc_auc_score(wrong_N, -q_N) for name, q_N in findings.signal.items()}
    assert set(auroc) == {"clip", "neighbours", "probe"}
    assert roc_auc_score(wrong_N, findings.probability_wrong_N) > max(auroc.values()) - 0.005
    assert roc_auc_score(wrong_N, -findings.margin_N) > 0.95
    assert findings.rate.value == pytest.approx(wrong_N.mean(), abs=0.02)
    assert findings.probability_wrong_N.mean() == pytest.approx(findings.rate.value, abs=1e-4)
    assert 0 <= findings.rate.low < findings.rate.value < findings.rate.high <= 1
    assert findings.clip_fit.fits
    assert findings.audited == 0


def test_the_findings_agree_with_themselves(found):
    findings, label_N, _ = found
    rows_N = np.arange(len(label_N))
    posterior_NC = findings.posterior_NC.astype(float)
    assert posterior_NC.sum(axis=1) == pytest.approx(1, abs=5e-3)
    assert 1 - findings.probability_wrong_N == pytest.approx(posterior_NC[rows_N, label_N], abs=1e-3)
    likely_N = findings.probability_wrong_N <= 0.5
    assert np.array_equal((findings.margin_N > 0) & likely_N, findings.suggested_N == label_N)
    assert findings.label_model().label_probability_N == pytest.approx(1 - findings.probability_wrong_N)
    assert (findings.label_model().consistency_N <= 0).all()
    assert all(weight >= 0 for weight in findings.weight.values())


def test_names_of_other_classes_are_noticed_and_left_out():
    image_ND, label_N, text_CD, wrong_N = scene(700)
    findings = find_wrong_labels(image_ND, label_N, np.roll(text_CD, 2, axis=0), classes=CLASSES)
    assert not findings.clip_fit.fits
    assert findings.clip_fit.reason.startswith("CLIP does not fit")
    assert findings.weight["clip"] == 0
    without = find_wrong_labels(image_ND, label_N, classes=CLASSES)
    assert without.clip_fit is None
    assert np.array_equal(findings.probability_wrong_N, without.probability_wrong_N)
    assert roc_auc_score(wrong_N, without.probability_wrong_N) > 0.95
    assert without.rate.value < wrong_N.mean() + 0.02


def test_a_clip_that_knows_little_is_noticed_beside_neighbours_that_know_much():
    image_ND, label_N, text_CD, _ = scene(700, noise=0)
    rng = np.random.default_rng(3)
    hazy_CD = 0.12 * text_CD + 0.3 * rng.normal(size=text_CD.shape)
    findings = find_wrong_labels(image_ND, label_N, hazy_CD, classes=CLASSES)
    fit = findings.clip_fit
    assert not fit.fits
    assert fit.zero_shot_agreement < 0.5 < 0.7 < fit.neighbour_agreement


def test_no_sample_is_judged_by_what_learned_from_its_label():
    image_ND, label_N, _, _ = scene(400)
    image_ND[200] = image_ND[0]  # a copy, which is in the same fold
    label_N[200] = label_N[0]
    before = find_wrong_labels(image_ND, label_N, classes=CLASSES)
    other_N = label_N.copy()
    other_N[[0, 200]] = (label_N[0] + 1) % CLASSES
    fold_N = draw_folds(sample_keys(np.arange(400)), np.where(np.arange(400) == 200, 0, np.arange(400)))
    assert fold_N[0] == fold_N[200]
    held_N = fold_N == fold_N[0]
    # Its own label moves the temperature of its fold alone, which changes no order.
    one_NC, two_NC = (probe_probability(image_ND, y.astype(np.int32), fold_N, CLASSES) for y in (label_N, other_N))
    ratio = (two_NC[0] - two_NC[0].max()) / np.minimum(one_NC[0] - one_NC[0].max(), -1e-9)
    assert np.ptp(ratio[one_NC[0] < one_NC[0].max()]) < 0.05
    assert not np.allclose(one_NC[~held_N], two_NC[~held_N])
    assert np.isfinite(before.probability_wrong_N).all()


def test_the_probe_against_scikit_learn():
    image_ND, label_N, _, _ = scene(600)
    penalty = 0.01
    ours_EC = fit_probe(image_ND.astype(np.float32), label_N, np.zeros((17, CLASSES)), penalty)
    theirs = LogisticRegression(C=1 / (penalty * 600), tol=1e-8, max_iter=1000)
    theirs.fit(image_ND, label_N)
    assert np.allclose(ours_EC[:-1].T, theirs.coef_, atol=0.02)


def test_more_freedom_is_likelier_and_blocks_do_not_matter(monkeypatch):
    image_ND, label_N, text_CD, _ = scene(500)
    channels = [(image_ND @ text_CD.T).astype(np.float32)]
    one = fit_mixture(channels, label_N, weighted, np.ones(1))
    start = np.concatenate([np.ones(CLASSES), np.zeros(CLASSES)])
    many = fit_mixture(channels, label_N, scaled, start)
    likelihood = {
        name: np.log(m.joint(channels, label_N).sum(axis=1)).mean() for name, m in (("one", one), ("many", many))
    }
    assert likelihood["many"] > likelihood["one"] - 1e-3  # but for the prior
    monkeypatch.setattr("secateur.semantics.mixture.ROWS", 33)
    again = fit_mixture(channels, label_N, weighted, np.ones(1))
    assert again.parameter == pytest.approx(one.parameter, rel=1e-2)


def test_margins_against_a_loop():
    posterior_NC = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
    label_N = np.arange(20, dtype=np.int32) % 4
    for i, margin in enumerate(margins(posterior_NC, label_N)):
        others = [posterior_NC[i, c] for c in range(4) if c != label_N[i]]
        assert margin == pytest.approx(posterior_NC[i, label_N[i]] - max(others))


@pytest.mark.parametrize("samples", [2, 3, 12])
def test_few_samples(samples):
    image_ND, label_N, text_CD, _ = scene(samples)
    findings = find_wrong_labels(image_ND, label_N, text_CD, classes=CLASSES)
    assert np.isfinite(findings.probability_wrong_N).all()
    assert 0 <= findings.rate.low <= findings.rate.value <= findings.rate.high <= 1


def test_wrong_input():
    image_ND, label_N, _, _ = scene(20)
    with pytest.raises(InputError, match="labels must be one for each of 20 embeddings, got 19"):
        find_wrong_labels(image_ND, label_N[1:], classes=CLASSES)
    with pytest.raises(InputError, match=r"labels must be in \[0, 3\), got 0 to 4"):
        find_wrong_labels(image_ND, label_N, classes=3)
    image_ND[3] = np.nan
    with pytest.raises(InputError, match="finite vectors"):
        find_wrong_labels(image_ND, label_N, classes=CLASSES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_probabilities_are_shifted_to_a_mean_and_keep_their_order(values, mean):
    probability_N = np.array(values)
    shifted_N = shifted(probability_N, mean)
    assert shifted_N.mean() == pytest.approx(mean, abs=1e-4)
    assert (np.diff(shifted_N[np.argsort(probability_N)]) >= 0).all()
    assert np.array_equal(shifted(probability_N, 0.0), probability_N)  # no shift reaches it
