"""Scores of predictions and of masks: pure functions on arrays."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


def confusion_matrix(predicted_N: Labels, label_N: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Count samples by label (rows) and prediction (columns), int64 (C, C).

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    flat_N = label_N.astype(np.int64) * classes + predicted_N
    return np.asarray(np.bincount(flat_N, minlength=classes * classes).reshape(classes, classes))


def accuracy(confusion_CC: npt.NDArray[np.int64]) -> float:
    """Fraction of the samples whose prediction equals the label, in [0, 1].

    >>> accuracy(np.array([[1, 1], [0, 2]]))
    0.75
    """
    return float(np.trace(confusion_CC) / confusion_CC.sum())


def per_class_accuracy(confusion_CC: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Fraction of the samples of each class that are predicted as it, float64 (C,); NaN for a class with no sample."""
    count_C = confusion_CC.sum(axis=1).astype(np.float64)
    return np.where(count_C > 0, np.diagonal(confusion_CC) / np.maximum(count_C, 1), np.nan)


def average_ranks(value_N: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Rank values from 1 to N, float64 (N,); equal ones share the mean of their ranks.

    >>> average_ranks(np.array([0.3, 0.1, 0.3])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, group_N, size_G = np.unique(value_N, return_inverse=True, return_counts=True)
    rank_G = np.cumsum(size_G) - (size_G - 1) / 2
    return np.asarray(rank_G[group_N])


def auroc(value_N: npt.NDArray[np.floating], positive_N: Bools) -> float:
    """Probability that a positive has a larger value than a negative, ties counting half, in [0, 1].

    This is the area under the ROC curve, by the rank statistic of Mann and Whitney (1947). Samples whose value is NaN
    are left out.

    Args:
        value_N: Evidence that a sample is positive; only its order counts.
        positive_N: Which samples are.

    Returns:
        The area, or NaN where there is no positive or no negative.

    >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    known_N = ~np.isnan(value_N)
    value_N, positive_N = value_N[known_N], positive_N[known_N]
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(average_ranks(value_N)[positive_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


class Detection(NamedTuple):
    """How well a set of dropped samples covers the wrong labels."""

    hits: int  # wrong labels dropped
    recall: float  # hits as a fraction of the wrong labels; NaN where there are none
    precision: float  # hits as a fraction of those dropped; NaN where none are


def detection(dropped_N: Bools, wrong_N: Bools) -> Detection:
    """Score dropping as a detector of wrong labels.

    >>> detection(np.array([True, True, False, False]), np.array([True, False, True, False]))
    Detection(hits=1, recall=0.5, precision=0.5)
    """
    hits, wrong, dropped = int((dropped_N & wrong_N).sum()), int(wrong_N.sum()), int(dropped_N.sum())
    nan = float("nan")
    return Detection(hits, hits / wrong if wrong else nan, hits / dropped if dropped else nan)
