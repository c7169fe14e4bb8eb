"""A corrected or filtered view of a data set, as a table that a run takes like any other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secateur.dataset import TableInfo
from secateur.dataset.table import Row, write_table
from secateur.evaluation.inspection import InspectConfig, Inspection

KEPT_FIRST = ("test", "validation", "train")  # of copies in several splits, the one in the first of these stays

Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]


def corrected_labels(
    label_N: Labels, suggested_N: Labels, certainty_N: npt.NDArray[np.float64], changeable_N: Bools, above: float
) -> Labels:
    """Labels with the suggested one where it is probable enough and the sample may be changed, int32 (N,)."""
    return np.where(changeable_N & (certainty_N > above), suggested_N, label_N).astype(np.int32)


def filtered(
    wrong_N: npt.NDArray[np.float64],
    groups: Sequence[Sequence[int]],
    split_N: npt.NDArray[np.object_],
    changeable_N: Bools,
    above: float,
) -> Bools:
    """Which samples are left without suspected labels and without copies, bool (N,).

    Of copies the one in the test split stays, else that in the validation split, else the one whose label is the
    least probably wrong. What may not be changed stays in any case.

    Args:
        wrong_N: Probability that the given label is wrong.
        groups: Copies: positions, two or more each.
        split_N: Split names.
        changeable_N: Whether a sample may be left out.
        above: Probability above which a label is suspected.
    """
    stays_N = ~changeable_N | (wrong_N <= above)
    for members in groups:
        left = [i for i in members if stays_N[i]]
        left.sort(key=lambda i: (bool(changeable_N[i]), KEPT_FIRST.index(split_N[i]), wrong_N[i], i))
        stays_N[[i for i in left[1:] if changeable_N[i]]] = False
    return stays_N


def write_view(judged: Inspection, copies: Inspection, config: InspectConfig, folder: str | Path) -> TableInfo:
    """Write the view that a config asks for.

    Args:
        judged: Whose labels decide; samples that it does not judge keep theirs.
        copies: The inspection of all samples, for their copies.
        config: Which view.
        folder: Where the table is written.

    Raises:
        InputError: A class is left without a training sample.
    """
    table, row_N = copies.table, copies.row
    place = np.searchsorted(row_N, judged.row)
    changeable_N = np.full(len(row_N), config.change_test)
    changeable_N |= copies.split != "test"
    label_R, stays_R = table.label.copy(), np.ones(len(table), dtype=bool)
    if config.export == "corrected":
        label_R[judged.row] = corrected_labels(
            judged.label,
            judged.findings.suggested_N,
            judged.probability_suggested,
            changeable_N[place],
            config.correct_above,
        )
    else:
        wrong_N = np.zeros(len(row_N))
        wrong_N[place] = judged.probability_wrong
        stays_R[row_N] = filtered(wrong_N, copies.groups, copies.split, changeable_N, config.suspect_above)
    captions = table.captions()
    rows = (
        Row(table.image(i), int(label_R[i]), str(table.split[i]), table.source(i), captions[i] or None)
        for i in np.flatnonzero(stays_R).tolist()
    )
    info = table.info
    return write_table(
        folder,
        rows,
        name=info.name,
        classes=info.classes,
        prompts=info.prompts,
        unreadable=info.unreadable,
        shards=len(info.shards),
    )
