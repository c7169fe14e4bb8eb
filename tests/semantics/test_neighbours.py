from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from secateur.dataset import open_table
from secateur.errors import InputError
from secateur.semantics.neighbours import (
    class_diversity,
    copies,
    fit_neighbours,
    neighbour_probability,
    search,
    without_copies,
)
from secateur.training import runs


def clusters(samples=1500, classes=10, width=32, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    true_N = rng.integers(0, classes, samples).astype(np.int32)
    centre_CD = rng.normal(size=(classes, width)) / np.sqrt(width)
    return centre_CD[true_N] + spread * rng.normal(size=(samples, width)) / np.sqrt(width), true_N


def spoiled(true_N, rate, seed=1):
    rng = np.random.default_rng(seed)
    wrong_N = rng.random(len(true_N)) < rate
    shift_N = rng.integers(1, true_N.max() + 1, len(true_N))
    return np.where(wrong_N, (true_N + shift_N) % (true_N.max() + 1), true_N).astype(np.int32)


def near_of(embedding_ND, neighbours=50):
    near = search(embedding_ND)
    return without_copies(near, copies(near, 0), neighbours)


def test_votes_against_a_slow_oracle():
    embedding_ND, label_N = clusters(60, 4, 8)
    embedding_ND[1] = 3 * embedding_ND[0]  # a copy
    weight_N = np.random.default_rng(2).random(60)
    p_NC = neighbour_probability(near_of(embedding_ND, 7), label_N, 5, weight_N, width=0.1)
    unit_ND = embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True)
    for i in range(60):
        others = [(unit_ND[i] @ unit_ND[j], j) for j in range(60) if j != i and unit_ND[i] @ unit_ND[j] <= 0.9999]
        chosen = sorted(others, reverse=True)[:7]
        votes = [0.5] * 5
        for cosine, j in chosen:
            votes[label_N[j]] += weight_N[j] * np.exp((cosine - chosen[0][0]) / 0.1)
        assert p_NC[i] == pytest.approx(np.array(votes) / sum(votes), rel=1e-4)


def test_nobody_is_judged_by_the_own_label_or_that_of_a_copy():
    embedding_ND, label_N = clusters(300)
    embedding_ND = np.concatenate([embedding_ND, embedding_ND[:50]])
    label_N = np.concatenate([label_N, label_N[:50]])
    near = near_of(embedding_ND)
    before = neighbour_probability(near, label_N, 10)
    other_N = label_N.copy()
    other_N[[7, 307]] = (label_N[7] + 1) % 10
    after = neighbour_probability(near, other_N, 10)
    assert np.array_equal(after[[7, 307]], before[[7, 307]])
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("data", ["clusters", "digits"])
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_wrong_labels_are_found(data, rate):
    if data == "clusters":
        embedding_ND, true_N = clusters()
    else:
        embedding_ND, true_N = load_digits(return_X_y=True)
    label_N = spoiled(true_N, rate)
    model = fit_neighbours(embedding_ND, label_N)
    wrong_N = label_N != true_N
    assert roc_auc_score(wrong_N, -model.label_probability_N) > 0.97
    assert model.expected_wrong == pytest.approx(wrong_N.mean(), abs=0.03)
    assert (model.suggested_N == true_N).mean() > 0.97
    assert model.fits
    assert np.isfinite(model.consistency_N).all()


def test_right_labels_are_believed_also_where_classes_overlap():
    embedding_ND, true_N = clusters(spread=1.2)
    assert fit_neighbours(embedding_ND, true_N).zero_shot_agreement < 0.95
    model = fit_neighbours(*clusters())
    assert model.expected_wrong < 0.02
    assert (model.label_probability_N < 0.5).mean() < 0.01


def test_embeddings_that_know_nothing_accuse_few_and_say_so():
    rng = np.random.default_rng(0)
    model = fit_neighbours(rng.normal(size=(1000, 16)), rng.integers(0, 5, 1000))
    assert not model.fits


def test_few_samples_and_wrong_input():
    near = near_of(np.array([[1.0, 0], [0, 1], [2, 0]]))
    assert near.position_NK.shape == near.cosine_NK.shape == (3, 2)
    assert np.isneginf(near.cosine_NK[0]).sum() == 1  # its copy
    p_NC = neighbour_probability(near_of(np.ones((3, 2))), np.array([0, 1, 1]), 2)
    assert p_NC == pytest.approx(np.full((3, 2), 0.5))
    with pytest.raises(InputError, match="embeddings must be two or more finite vectors other than zero, got 2"):
        search(np.array([[0.0, 0], [0, 1]]))


def test_search_is_exact_across_blocks(monkeypatch):
    monkeypatch.setattr("secateur.semantics.neighbours.CHUNK", 7)
    embedding_ND, _ = clusters(50, 4, 8)
    near = search(embedding_ND, 5)
    unit_ND = embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True)
    cosine_NN = unit_ND @ unit_ND.T - 9 * np.eye(50)
    assert np.array_equal(near.position_NK, np.argsort(-cosine_NN, axis=1)[:, :5])
    assert near.cosine_NK == pytest.approx(-np.sort(-cosine_NN, axis=1)[:, :5], abs=1e-5)


def test_diversity_is_the_distance_to_the_own_class():
    embedding_ND, label_N = clusters(60, 3, 8)
    label_N[0] = 3  # alone
    embedding_ND[5] = embedding_ND[4]
    label_N[5] = label_N[4]
    diversity_N = class_diversity(embedding_ND, label_N, 2)
    unit_ND = embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True)
    for i in range(1, 60):
        distances = sorted(1 - unit_ND[i] @ unit_ND[j] for j in range(60) if j != i and label_N[j] == label_N[i])
        assert diversity_N[i] == pytest.approx(np.mean(distances[:2]), abs=1e-5)
    assert diversity_N[0] == 1


def test_the_pruning_step_asks_the_neighbours_only_if_told_to(digits_folder, monkeypatch):
    train = open_table(digits_folder).part("train")
    embedding_ND = np.eye(10)[train.label] + np.random.default_rng(0).normal(scale=0.1, size=(len(train), 10))
    embedding_ND = (embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True)).astype(np.float32)
    info = {"model": "m", "pretrained": "p", "weights": "w", "precision": "fp32", "prompts": {}}
    made = SimpleNamespace(image_ND=embedding_ND, text_CD=np.eye(10, dtype=np.float32), info=info)
    monkeypatch.setattr(runs, "open_embeddings", lambda folders, table: made)
    semantics, figures = runs.read_semantics(train, ["somewhere"], "neighbours")
    assert figures["source"] == "neighbours"
    assert (semantics.suggested_N == train.label).mean() > 0.97
    _, figures = runs.read_semantics(train, ["somewhere"])
    assert figures["source"] == "clip"
    assert figures["zero_shot_agreement"] > 0.95
    assert "alarm" not in figures
    _, figures = runs.read_semantics(train, ["somewhere"], "combined")
    assert figures["source"] == "combined"
    made.text_CD = np.roll(made.text_CD, 1, axis=0)  # the names of other classes
    for source in ("clip", "combined"):
        semantics, figures = runs.read_semantics(train, ["somewhere"], source)
        assert figures["source"] == "neighbours and probe"
        assert figures["alarm"].startswith("CLIP does not fit: CLIP's first choice is the given label for 0.")
        assert (semantics.suggested_N == train.label).mean() > 0.97
    assert runs.read_semantics(train, [], "neighbours") == (None, None)
