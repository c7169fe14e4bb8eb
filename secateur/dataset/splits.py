"""Cutting splits out of a data set that brings none."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secateur.streams import sample_keys, uniform

Splits = npt.NDArray[np.object_]


def cut_splits(
    hashes: Sequence[str],
    label_N: npt.NDArray[np.int32],
    split_N: Splits,
    *,
    test: float,
    validation: float,
    seed: int,
) -> Splits:
    """Cut a test and a validation split out of the training pictures, where the source brings none.

    Each picture has its place by its own hash alone: when others come or go it stays there, and copies of it are with
    it. Only the picture that is last in this order stays for training where its class has no other.

    Args:
        hashes: Of the pictures.
        label_N: Their labels, int32 (N,).
        split_N: Splits that the source names, object (N,); empty texts for none, which is the training split.
        test: Fraction of all pictures for the test, in [0, 1).
        validation: Fraction of the others for the validation, in [0, 1).
        seed: Of the splits.

    Returns:
        Splits, object (N,).
    """
    test = 0.0 if "test" in split_N else test
    validation = 0.0 if "validation" in split_N else validation * (1 - test)
    place_N = uniform(sample_keys(hashes), "split", seed)
    trainable_N = (split_N == "") | (split_N == "train")
    cut_N = np.where(place_N < test, "test", np.where(place_N < test + validation, "validation", "train"))
    cut_N = np.where(trainable_N, cut_N, split_N).astype(object)
    for label in set(label_N[trainable_N].tolist()) - set(label_N[cut_N == "train"].tolist()):
        members = np.flatnonzero(trainable_N & (label_N == label))
        cut_N[members[np.argmax(place_N[members])]] = "train"
    return cut_N
