import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur.evaluation.scores import accuracy, auroc, average_ranks, confusion_matrix, detection, per_class_accuracy


def test_confusion_matrix_and_accuracies_equal_scikit_learns():
    from sklearn import metrics

    random = np.random.default_rng(0)
    label_N, predicted_N = random.integers(0, 7, 500), random.integers(0, 7, 500)
    confusion_CC = confusion_matrix(predicted_N, label_N, 7)
    assert confusion_CC.tolist() == metrics.confusion_matrix(label_N, predicted_N).tolist()
    assert accuracy(confusion_CC) == pytest.approx(metrics.accuracy_score(label_N, predicted_N))
    recall_C = metrics.recall_score(label_N, predicted_N, average=None)
    assert per_class_accuracy(confusion_CC) == pytest.approx(recall_C)


def test_a_class_without_samples_has_no_accuracy_but_keeps_its_row():
    confusion_CC = confusion_matrix(np.array([2, 0]), np.array([0, 0], dtype=np.int32), 3)
    assert confusion_CC.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert per_class_accuracy(confusion_CC)[0] == 0.5
    assert np.isnan(per_class_accuracy(confusion_CC)[1:]).all()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.integers(2, 30), elements=st.integers(-3, 3)), st.randoms(use_true_random=False))
def test_auroc_is_the_share_of_pairs_in_the_right_order(value_N, random):
    positive_N = np.array([random.random() < 0.5 for _ in value_N])
    positive_N[0], positive_N[-1] = True, False
    pairs = [(p > n) + 0.5 * (p == n) for p in value_N[positive_N] for n in value_N[~positive_N]]
    assert auroc(value_N.astype(np.float32), positive_N) == pytest.approx(np.mean(pairs))


def test_auroc_equals_scikit_learns_with_many_ties():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    positive_N = random.random(2000) < 0.15
    value_N = np.round(random.normal(size=2000) + positive_N, 1)
    assert auroc(value_N, positive_N) == pytest.approx(roc_auc_score(positive_N, value_N), abs=1e-12)


def test_auroc_leaves_unknown_values_out_and_is_undefined_for_one_kind():
    value_N = np.array([0.9, np.nan, 0.1, 0.5])
    assert auroc(value_N, np.array([True, True, False, False])) == 1.0
    assert np.isnan(auroc(value_N, np.array([True, True, True, True])))
    assert np.isnan(auroc(np.full(4, np.nan), np.array([True, False, True, False])))


def test_ranks_equal_scipys():
    from scipy.stats import rankdata

    value_N = np.random.default_rng(2).integers(0, 9, 100).astype(np.float64)
    assert average_ranks(value_N).tolist() == rankdata(value_N).tolist()


def test_detection_by_hand():
    dropped_N = np.array([True, True, True, False, False, False])
    wrong_N = np.array([True, True, False, True, False, False])
    found = detection(dropped_N, wrong_N)
    assert found.hits == 2
    assert found.recall == pytest.approx(2 / 3)
    assert found.precision == pytest.approx(2 / 3)
    nothing = np.zeros(6, dtype=bool)
    assert np.isnan(detection(nothing, wrong_N).precision)
    assert detection(nothing, wrong_N).recall == 0
    assert np.isnan(detection(dropped_N, nothing).recall)
