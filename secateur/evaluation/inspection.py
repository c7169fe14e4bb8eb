"""Inspecting a labelled data set without training: which labels are probably wrong, and which pictures are copies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.dataset import ImageTable
from secateur.errors import InputError, require_choice, require_range
from secateur.semantics.embeddings import Embeddings
from secateur.semantics.findings import Findings

EXPORTS = ("none", "corrected", "filtered")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InspectConfig:
    """What counts as a suspected label, and what is done about it."""

    suspect_above: float = 0.5  # probability of being wrong above which a label is suspected
    fail_above: str = ""  # exit code 3 if the estimated fraction of wrong labels is above this, "5%" or 0.05
    export: str = "none"  # write a table for `run --source`: "corrected", or "filtered" of suspects and copies
    correct_above: float = 0.9  # probability of the suggested label above which a corrected table has it
    change_test: bool = False  # let the export change the test split too
    audit: int = 0  # draw so many samples for a person to judge
    audited: str = ""  # the judged audit.csv, to calibrate probabilities and rate

    def __post_init__(self) -> None:
        require_range("suspect_above", self.suspect_above, 0, 1, open_high=True)
        require_range("correct_above", self.correct_above, 0, 1, open_high=True)
        require_range("audit", self.audit, 0)
        require_choice("export", self.export, EXPORTS)
        if self.audited and not Path(self.audited).is_file():
            raise InputError(f"audited must be a file, got {self.audited!r}, which is not there")
        self.limit()

    def limit(self) -> float | None:
        """The largest estimated fraction of wrong labels that is accepted, in [0, 1]; None for any.

        Raises:
            InputError: The text is neither a fraction nor a percentage.

        >>> InspectConfig(fail_above="5 %").limit()
        0.05
        """
        if not self.fail_above:
            return None
        found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", self.fail_above)
        limit = float(found[1]) / (100 if found[2] else 1) if found else np.nan
        if not 0 <= limit <= 1:
            raise InputError(f"fail_above must be a fraction in [0, 1] or a percentage, got {self.fail_above!r}")
        return limit


@dataclass(frozen=True)
class Inspection:
    """What was found out about N judged samples of a table.

    Attributes:
        table: All rows.
        row: Rows that were judged, int64 (N,), ascending.
        findings: What the signals say of them.
        groups: Copies, exact or near: positions among the N, two or more each.
        exact: Whether a sample has a byte-identical copy, bool (N,).
        leak: Whether it is a training sample with a copy in the test split, bool (N,).
        audited: What a person said of the label: 1 wrong, 0 right, -1 not asked, int8 (N,).
        clip: Which CLIP was asked; see `Embeddings.info`.
    """

    table: ImageTable
    row: npt.NDArray[np.int64]
    findings: Findings
    groups: tuple[tuple[int, ...], ...]
    exact: Bools
    leak: Bools
    audited: npt.NDArray[np.int8]
    clip: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def label(self) -> npt.NDArray[np.int32]:
        """Given labels, int32 (N,)."""
        return self.table.label[self.row]

    @cached_property
    def split(self) -> npt.NDArray[np.object_]:
        """Split names, object (N,)."""
        return self.table.split[self.row]

    @cached_property
    def group(self) -> npt.NDArray[np.int32]:
        """Index into `groups`, int32 (N,); -1 for a sample without a copy."""
        group_N = np.full(len(self), -1, dtype=np.int32)
        for index, members in enumerate(self.groups):
            group_N[list(members)] = index
        return group_N

    @cached_property
    def probability_wrong(self) -> npt.NDArray[np.float64]:
        """Probability that the given label is wrong, float64 (N,); what a person said counts as certain."""
        return np.where(self.audited >= 0, self.audited, self.findings.probability_wrong_N)

    @cached_property
    def probability_suggested(self) -> npt.NDArray[np.float64]:
        """Probability of the suggested label, float64 (N,); 0 where that is the given one.

        Where a person found the given label wrong, it is the share among the other classes.
        """
        suggested_N, rows_N = self.findings.suggested_N, np.arange(len(self))
        certainty_N = self.findings.posterior_NC[rows_N, suggested_N].astype(np.float64)
        wrong = np.flatnonzero((self.audited == 1) & (suggested_N != self.label))
        other_WC = self.findings.posterior_NC[wrong].astype(np.float64)
        other_WC[np.arange(len(wrong)), self.label[wrong]] = 0
        total_W = other_WC.sum(axis=1)
        certainty_N[wrong] /= np.where(total_W > 0, total_W, 1)
        return np.where(suggested_N == self.label, 0, np.minimum(certainty_N, self.probability_wrong))

    def suspects(self, above: float) -> npt.NDArray[np.int64]:
        """Positions of the suspected labels, those most probably wrong first; ties by margin."""
        order = np.lexsort((self.findings.margin_N, -self.probability_wrong))
        return order[self.probability_wrong[order] > above]


def judged_rows(table: ImageTable) -> npt.NDArray[np.int64]:
    """Rows whose labels are judged: those of all splits but `reference`, which has embeddings for none."""
    return np.flatnonzero(table.split != "reference")


def inspect(
    table: ImageTable, embeddings: Embeddings, audited: Mapping[str, bool] | None = None, *, test: bool = True
) -> Inspection:
    """Judge the labels of a table, and find its copies.

    Args:
        table: All rows.
        embeddings: Of the rows of all splits but `reference`.
        audited: What a person found of some samples: whether the label of an id is wrong.
        test: Judge the test split too. Without it, no label of the test split has a say in what is found.

    Raises:
        InputError: An embedding is zero or not finite, or no judged sample is left.
    """
    from secateur.semantics.duplicates import find_duplicates  # these take seconds to import
    from secateur.semantics.neighbours import search
    from secateur.semantics.signals import find_wrong_labels

    row_N = judged_rows(table)
    chosen = np.arange(len(row_N)) if test else np.flatnonzero(table.split[row_N] != "test")
    row_N, image_ND = row_N[chosen], embeddings.image_ND[chosen]
    near, classes = search(image_ND), len(table.info.classes)
    findings = find_wrong_labels(
        image_ND, table.label[row_N], embeddings.text_CD, classes=classes, keys_N=table.key[row_N], near=near
    )
    duplicates = find_duplicates(table.sample_id[row_N], image_ND, table.split[row_N], near=near)
    leak_N = np.zeros(len(row_N), dtype=bool)
    leak_N[list(duplicates.leaks)] = True
    audited_N = np.full(len(row_N), -1, dtype=np.int8)
    inspection = Inspection(
        table, row_N, findings, duplicates.groups, duplicates.exact_N, leak_N, audited_N, embeddings.info
    )
    return calibrated(inspection, audited) if audited else inspection


def calibrated(inspection: Inspection, audited: Mapping[str, bool]) -> Inspection:
    """The same, with probabilities and rate calibrated by what a person found."""
    from secateur.semantics.audit import calibrate

    ids = inspection.table.sample_id[inspection.row]
    position_A = np.flatnonzero(np.isin(ids.astype(str), list(audited)))
    if not len(position_A):
        return inspection
    wrong_A = np.array([audited[ids[i]] for i in position_A])
    audited_N = inspection.audited.copy()
    audited_N[position_A] = wrong_A
    findings = calibrate(inspection.findings, inspection.label, position_A, wrong_A)
    return replace(inspection, findings=findings, audited=audited_N)
