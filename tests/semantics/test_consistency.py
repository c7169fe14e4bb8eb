import numpy as np
import pytest

from secateur.semantics.consistency import class_posterior, fit_temperature, log_softmax, smoothed_transitions
from secateur.semantics.mixture import fit_label_model


def simulate(samples=4000, classes=6, temperature=20.0, noise=0.2, seed=0):
    """Draw true classes from CLIP's own probabilities, and given labels from a known transition."""
    rng = np.random.default_rng(seed)
    similarity_NC = rng.normal(scale=0.15, size=(samples, classes))
    p_NC = np.exp(log_softmax(temperature * similarity_NC))
    true_N = (p_NC.cumsum(1) > rng.random(samples)[:, None]).argmax(1)
    transition_CC = np.full((classes, classes), noise / (classes - 1))
    np.fill_diagonal(transition_CC, 1 - noise)
    transition_CC[0] = [1 - 2 * noise, 2 * noise, *[0] * (classes - 2)]
    label_N = (transition_CC[true_N].cumsum(1) > rng.random(samples)[:, None]).argmax(1).astype(np.int32)
    return similarity_NC, true_N, label_N, transition_CC


def test_em_finds_the_truth_it_was_drawn_from():
    similarity_NC, true_N, label_N, transition_CC = simulate(samples=20_000)
    model = fit_label_model(similarity_NC, label_N)
    assert model.temperature == pytest.approx(20, rel=0.1)
    assert model.transition_CC == pytest.approx(transition_CC, abs=0.05)
    wrong = label_N != true_N
    assert model.expected_wrong == pytest.approx(wrong.mean(), abs=0.02)
    # The probabilities mean what they say: in each fifth of them, that share of the labels is right.
    order = np.argsort(model.label_probability_N)
    for fifth in np.array_split(order, 5):
        assert (~wrong[fifth]).mean() == pytest.approx(model.label_probability_N[fifth].mean(), abs=0.04)


def test_em_climbs_to_the_same_place():
    similarity_NC, _, label_N, _ = simulate()
    model = fit_label_model(similarity_NC, label_N)
    transition_CC = 0.9 * np.eye(6) + 0.1 / 6
    for _ in range(60):
        temperature = fit_temperature(similarity_NC, transition_CC, label_N)
        posterior_NC, _ = class_posterior(log_softmax(temperature * similarity_NC), transition_CC, label_N)
        transition_CC = smoothed_transitions(posterior_NC.T @ np.eye(6)[label_N])
    assert model.temperature == pytest.approx(temperature, rel=0.02)
    assert model.transition_CC == pytest.approx(transition_CC, abs=0.01)
    assert model.label_probability_N == pytest.approx(posterior_NC[np.arange(len(label_N)), label_N], abs=0.03)


def test_posterior_against_a_slow_oracle():
    rng = np.random.default_rng(1)
    p_NC = rng.dirichlet(np.ones(3), 5)
    transition_CC = rng.dirichlet(np.ones(3), 3)
    label_N = np.array([0, 1, 2, 1, 0], dtype=np.int32)
    posterior_NC, likelihood = class_posterior(np.log(p_NC), transition_CC, label_N)
    total = 0.0
    for i, y in enumerate(label_N):
        joint = [p_NC[i, c] * transition_CC[c, y] for c in range(3)]
        total += np.log(sum(joint)) / 5
        assert posterior_NC[i] == pytest.approx(np.array(joint) / sum(joint))
    assert likelihood == pytest.approx(total)


def test_clean_labels_are_believed_and_consistency_is_the_log_probability():
    similarity_NC, true_N, _, _ = simulate(temperature=60)
    model = fit_label_model(similarity_NC, true_N.astype(np.int32))
    assert model.expected_wrong < 0.02
    log_p_NC = log_softmax(model.temperature * similarity_NC)
    assert model.consistency_N == pytest.approx(log_p_NC[np.arange(len(true_N)), true_N])
    assert model.zero_shot_agreement == (similarity_NC.argmax(1) == true_N).mean()


def test_a_clip_that_knows_nothing_accuses_nobody():
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 5, 2000).astype(np.int32)
    model = fit_label_model(rng.normal(scale=0.1, size=(2000, 5)), label_N)
    assert model.zero_shot_agreement < 0.3
    assert not model.fits
    assert (model.label_probability_N > 0.8).all()
    assert model.transition_CC.sum(axis=1) == pytest.approx(1)


def test_right_labels_of_many_small_classes_are_believed():
    rng = np.random.default_rng(0)
    text_CD = np.linalg.qr(rng.normal(size=(120, 100)))[0].T
    label_N = np.repeat(np.arange(100, dtype=np.int32), 20)
    image_ND = text_CD[label_N] + rng.gamma(2, 0.11, size=(2000, 1)) * rng.normal(size=(2000, 120))
    image_ND /= np.linalg.norm(image_ND, axis=1, keepdims=True)
    model = fit_label_model(image_ND @ text_CD.T, label_N)
    assert 0.7 < model.zero_shot_agreement < 0.9
    assert (model.label_probability_N < 0.5).mean() < 0.06  # one count in each cell makes it 0.11
    assert model.expected_wrong < 0.06


def test_smoothed_transitions_against_a_slow_oracle():
    count_CC = np.random.default_rng(0).integers(0, 9, (4, 4)) * 1.0
    count_CC[2] = 0  # a class that nothing is told of is like all together
    size = count_CC.sum() / 4  # fewer than 100
    right = (sum(count_CC[c, c] for c in range(4)) + 1) / (count_CC.sum() + 2)
    smoothed_CC = smoothed_transitions(count_CC)
    for c in range(4):
        for y in range(4):
            added = size * right if c == y else size * (1 - right) / 3
            assert smoothed_CC[c, y] == pytest.approx((count_CC[c, y] + added) / (count_CC[c].sum() + size))
    assert smoothed_transitions(np.array([[7.0]])) == pytest.approx(1)
