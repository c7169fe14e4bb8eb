import numpy as np
import pytest
import torch

from secateur.evaluation.scores import auroc
from secateur.semantics.adapters import Adapters, adapted_similarity
from secateur.semantics.choosing import choose_label_model
from secateur.semantics.consistency import log_softmax
from secateur.semantics.embeddings import unit
from secateur.semantics.mixture import fit_label_model
from secateur.streams import sample_keys

CLASSES, TEMPERATURE = 5, 20.0


@pytest.fixture(scope="module")
def scene():
    """A CLIP whose texts lie beside what they name, 15 % wrong labels, and five folds."""
    rng = np.random.default_rng(0)
    centre_CD = np.linalg.qr(rng.normal(size=(24, CLASSES)))[0].T
    true_N = rng.integers(0, CLASSES, 3000)
    image_ND = unit(centre_CD[true_N] + 0.25 * rng.normal(size=(3000, 24)))
    text_CD = unit(centre_CD + 0.2 * rng.normal(size=centre_CD.shape))
    other_N = (true_N + rng.integers(1, CLASSES, 3000)) % CLASSES
    label_N = np.where(rng.random(3000) < 0.15, other_N, true_N).astype(np.int32)
    return image_ND, text_CD, label_N, rng.integers(0, 5, 3000), true_N


def adapted(image_ND, text_CD, label_N, fold_N, weight_N=None):
    key_N = sample_keys(np.arange(len(label_N)))
    return adapted_similarity(image_ND, text_CD, label_N, fold_N, TEMPERATURE, key_N, weight_N)


def test_they_bring_texts_to_pictures_and_find_wrong_labels(scene):
    image_ND, text_CD, label_N, _, true_N = scene
    plain_NC, rows_N = image_ND @ text_CD.T, np.arange(3000)
    found_NC = adapted(*scene[:4], weight_N=fit_label_model(plain_NC, label_N).label_probability_N)
    assert np.abs(found_NC).max() <= 1 + 1e-5
    assert (found_NC.argmax(axis=1) == true_N).mean() > (plain_NC.argmax(axis=1) == true_N).mean() + 0.02
    suspicion = [-log_softmax(TEMPERATURE * s_NC.astype(float))[rows_N, label_N] for s_NC in (found_NC, plain_NC)]
    assert auroc(suspicion[0], label_N != true_N) > auroc(suspicion[1], label_N != true_N)


def test_no_sample_is_judged_by_adapters_that_saw_its_fold(scene):
    image_ND, text_CD, label_N, fold_N, _ = scene
    other_N = np.where(fold_N == 2, (label_N + 2) % CLASSES, label_N).astype(np.int32)
    before_NC, after_NC = adapted(*scene[:4]), adapted(image_ND, text_CD, other_N, fold_N)
    same_N = (before_NC == after_NC).all(axis=1)
    assert same_N[fold_N == 2].all()
    assert not same_N[fold_N != 2].any()


def test_what_weighs_nothing_teaches_nothing(scene):
    image_ND, text_CD, label_N, fold_N, _ = scene
    weight_N = np.where(np.arange(3000) % 7 == 0, 0.0, 1.0)
    other_N = np.where(weight_N == 0, 0, label_N).astype(np.int32)
    assert np.array_equal(*(adapted(image_ND, text_CD, y_N, fold_N, weight_N) for y_N in (label_N, other_N)))


def test_before_they_learn_they_change_nothing(scene):
    image_ND, text_CD = scene[:2]
    found_NC = Adapters(torch.from_numpy(text_CD), 0)(torch.from_numpy(image_ND)).detach().numpy()
    assert found_NC == pytest.approx(image_ND @ text_CD.T, abs=1e-5)


def test_pruning_can_ask_for_them(scene):
    image_ND, text_CD, label_N, _, true_N = scene
    key_N = sample_keys(np.arange(3000))
    plain, _, _ = choose_label_model(image_ND, text_CD, label_N, key_N, "clip")
    model, used, alarm = choose_label_model(image_ND, text_CD, label_N, key_N, "adapted")
    assert (used, alarm) == ("adapted", None)
    assert (model.suggested_N == true_N).mean() > (plain.suggested_N == true_N).mean()
