"""An inspection whose findings are made up, so that every figure in it is known."""

from pathlib import Path

import numpy as np

from secateur.dataset import ImageTable, open_table
from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, write_table
from secateur.evaluation.inspection import Inspection, judged_rows
from secateur.semantics.findings import ClipFit, Estimate, Findings
from secateur.semantics.mixture import fit_label_model

CLASSES = ("cat", "<script>alert('dog')</script>", 'say "a|b", Ωδός')
TRAIN, VALIDATION, TEST, REFERENCE = 24, 6, 9, 3


def source(i: int) -> str:
    return f"<i>{i:03d}\"'\n,;кот.bmp"


def make_table(folder: Path) -> ImageTable:
    """Labels 0, 1, 2, 0, ...; the picture of row 20, a training one, is that of row 0, and that of row 32, a test one,
    is that of row 5."""
    random = np.random.default_rng(0)
    images = [encode_bmp(random.integers(0, 256, (8, 8)).astype(np.uint8)) for _ in range(42)]
    images[20], images[32] = images[0], images[5]
    splits = ["train"] * TRAIN + ["validation"] * VALIDATION + ["test"] * TEST + ["reference"] * REFERENCE
    rows = [
        Row(image, i % 3, split, source(i), "a cat" if split == "reference" else None)
        for i, (image, split) in enumerate(zip(images, splits, strict=True))
    ]
    write_table(folder, rows, name="pets & <b>co</b>", classes=CLASSES, prompts=("a {}.",), shards=2)
    return open_table(folder)


def make_findings(
    label_N: np.ndarray, wrong_N: np.ndarray, suggested_N: np.ndarray, *, audited: int = 0, fits: bool = True
) -> Findings:
    """The suggested label gets what the given one has not."""
    rows_N = np.arange(len(label_N))
    posterior_NC = np.zeros((len(label_N), len(CLASSES)))
    posterior_NC[rows_N, suggested_N] = wrong_N
    posterior_NC[rows_N, label_N] = 1 - wrong_N
    fit = ClipFit(
        fits,
        f"CLIP {'fits' if fits else 'does not fit'}: its & the <i>neighbours</i>' choice",
        0.8,
        0.9,
    )
    return Findings(
        probability_wrong_N=wrong_N, suggested_N=suggested_N.astype(np.int32),
        posterior_NC=posterior_NC.astype(np.float16), margin_N=1 - 2 * wrong_N,
        signal={"clip": np.log1p(-wrong_N), "neighbours": np.log1p(-wrong_N / 2)},
        weight={"clip": 1.0, "neighbours": 0.5, "probe": 0.0}, rate=Estimate(0.1, 0.08, 0.12), audited=audited,
        clip_fit=fit, diversity_N=np.zeros(len(label_N), np.float32),
        model=fit_label_model(np.eye(3)[label_N], label_N),
    )  # fmt: skip


def make_inspection(folder: Path, **findings: object) -> Inspection:
    """Rows 0, 7, 14, ... are wrong with 0.95, 0.93, ... and the next class is suggested."""
    table = make_table(folder)
    row_N = judged_rows(table)
    label_N = table.label[row_N]
    wrong_N = np.where(row_N % 7 == 0, 0.95 - 0.02 * row_N / 7, 0.01)
    suggested_N = np.where(wrong_N > 0.5, (label_N + 1) % 3, label_N)
    exact_N, leak_N = np.isin(row_N, [0, 20, 5, 32]), row_N == 5
    return Inspection(
        table, row_N, make_findings(label_N, wrong_N, suggested_N, **findings), ((0, 20), (5, 32)), exact_N, leak_N,
        np.full(len(row_N), -1, np.int8), {"model": "tiny", "weights": "0f"},
    )  # fmt: skip
