"""The evaluation of a pruned run beside its baselines."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.dataset import ImageTable, open_table
from secateur.errors import InputError
from secateur.evaluation.report import render_report, render_summary
from secateur.evaluation.results import FOUND, Arm, ArmRun, Noise, Results
from secateur.evaluation.scores import auroc, confusion_matrix, detection, per_class_accuracy
from secateur.files import read_json, replacing, write_json
from secateur.pruning.mask import Mask, read_mask
from secateur.training.saved import RUN_FILE, load_network, predict

log = logging.getLogger(__name__)

Truth = npt.NDArray[np.int32]


def evaluate(
    dataset_folder: str | Path,
    clean_labels_file: str | Path,
    model_folder: str | Path,
    mask_folder: str | Path,
    baseline_folders: Sequence[str | Path],
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
) -> Results:
    """Score a pruned run and its baselines on the test split, and its mask against the true labels where known.

    Args:
        dataset_folder: The table.
        clean_labels_file: Labels known to be true, Parquet (sample_id, label), possibly of no sample.
        model_folder: The pruned run.
        mask_folder: Its mask.
        baseline_folders: Runs to compare with, in the order of the table.
        results_file: Where the numbers are written, JSON.
        report_file: Where the report is written, HTML.
        summary_file: Where the result table is written, Markdown.

    Raises:
        InputError: A run, a mask or clean labels of another data set, or a data set without a test split.
    """
    table = open_table(dataset_folder)
    train, test = table.part("train"), table.part("test")
    if not len(test):
        raise InputError(f"data set must have a test split to be evaluated on, got none in {table.info.name!r}")
    mask = read_mask(mask_folder)
    infos = [read_info(model_folder, "model", table), *(read_info(f, "baseline", table) for f in baseline_folders)]
    check_mask(mask, train, infos[0])
    truth = read_truth(clean_labels_file, table)
    test_label_T = np.where(truth[table.split == "test"] >= 0, truth[table.split == "test"], test.label)
    runs = [
        measure(folder, info, test, test_label_T)
        for folder, info in zip([model_folder, *baseline_folders], infos, strict=True)
    ]
    train_truth_N = truth[table.split == "train"]
    results = make_results(table, runs, mask, score_noise(mask, train.label, train_truth_N))
    report = render_report(results, runs, train, mask, train_truth_N)
    write_json(results_file, results.to_json())
    for path, text in ((report_file, report), (summary_file, render_summary(results))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return results


def check_mask(mask: Mask, train: ImageTable, info: dict[str, Any]) -> None:
    """Check that a mask covers the training samples, and that it comes from the run that is judged."""
    train.check_digest(mask.meta["dataset"]["digest"], "mask")
    if not np.array_equal(mask.sample_id, train.sample_id):
        raise InputError(f"mask must hold the {len(train)} training samples in their order, got {len(mask)} others")
    wanted = f"{info['method']} at keep {info['keep']:g}"
    got = f"{mask.meta['method']} at keep {mask.meta['keep_requested']:g}"
    if wanted != got:
        raise InputError(f"mask must be the model's own, {wanted}, got {got}")


def read_info(folder: str | Path, name: str, table: ImageTable) -> dict[str, Any]:
    """Read what a run says of itself."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        raise InputError(f"{name} must be a folder with {RUN_FILE}, got {str(folder)!r}")
    info: dict[str, Any] = read_json(path)
    table.check_digest(info["dataset"]["digest"], name)
    return info


def read_truth(path: str | Path, table: ImageTable) -> Truth:
    """True label of each row, int32 (N,); -1 where it is not known."""
    try:
        clean = pq.read_table(path, columns=["sample_id", "label"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"clean labels must be a Parquet file with sample_id and label, got {str(path)!r}") from error
    known = dict(zip(clean["sample_id"].to_pylist(), clean["label"].to_pylist(), strict=True))
    outside = [v for v in known.values() if not 0 <= v < len(table.info.classes)]
    if outside:
        raise InputError(f"clean labels must be in [0, {len(table.info.classes) - 1}], got {outside[0]}")
    return np.array([known.get(i, -1) for i in table.sample_id], dtype=np.int32)


def measure(folder: str | Path, info: dict[str, Any], test: ImageTable, label_T: Truth) -> ArmRun:
    """Run every network of a run over the test split."""
    confusions = [
        confusion_matrix(predict(load_network(folder, seed), test).argmax(axis=1), label_T, len(test.info.classes))
        for seed in info["seeds"]
    ]
    histories = [read_json(Path(folder) / f"seed-{seed}" / "history.json") for seed in info["seeds"]]
    run = ArmRun(info, histories, confusions)
    cost = info["cost"]
    log.info(
        "%s: test accuracy %.1f %% (%s), %.1f %% kept, %d samples forward, %d backward, %.1f s",
        info["method"],
        100 * np.mean(run.accuracy),
        ", ".join(f"{100 * a:.1f}" for a in run.accuracy),
        100 * info["keep_achieved"],
        cost["forward_samples"],
        cost["backward_samples"],
        cost["seconds"],
    )
    return run


def score_noise(mask: Mask, label_N: npt.NDArray[np.int32], truth_N: Truth) -> Noise | None:
    """Score the mask as a detector of wrong labels, over the samples whose true label is known; None if there are none.

    Args:
        mask: What was kept, and why.
        label_N: Given labels, int32 (N,).
        truth_N: True labels, int32 (N,); -1 where unknown.
    """
    known_N = truth_N >= 0
    if not known_N.any():
        return None
    wrong_K = (truth_N != label_N)[known_N]
    found = detection(np.isin(mask.reason, FOUND)[known_N], wrong_K)
    dropped = detection(~mask.kept[known_N], wrong_K)
    return Noise(
        known=int(known_N.sum()),
        wrong=int(wrong_K.sum()),
        found_wrong=found.hits,
        recall=found.recall,
        precision=found.precision,
        dropped_wrong_all=dropped.hits,
        recall_all=dropped.recall,
        precision_all=dropped.precision,
        auroc_score=auroc(-mask.score[known_N], wrong_K),
        auroc_label_probability=auroc(-mask.label_probability[known_N], wrong_K),
    )


def make_results(table: ImageTable, runs: Sequence[ArmRun], mask: Mask, noise: Noise | None) -> Results:
    """Put the numbers together."""
    arms = tuple(make_arm(run, "baseline" if i else "pruned") for i, run in enumerate(runs))
    first = runs[0].confusions[0]
    return Results(
        dataset={"name": table.info.name, "digest": table.info.digest, "classes": list(table.info.classes)},
        arms=arms,
        reasons=mask.reasons,
        noise=noise,
        mask_digest=mask.digest,
        alarms=tuple(find_alarms(runs, arms)),
        per_class=tuple(per_class_accuracy(first).tolist()),
        confusion=tuple(map(tuple, first.tolist())),
    )


def make_arm(run: ArmRun, role: str) -> Arm:
    """A run's line of the result table."""
    info = run.info
    return Arm(
        name=info["method"],
        role=role,
        keep=info["keep"],
        keep_achieved=info["keep_achieved"],
        seeds=tuple(info["seeds"]),
        accuracy=run.accuracy,
        **info["cost"],
    )


def find_alarms(runs: Sequence[ArmRun], arms: Sequence[Arm]) -> list[str]:
    """What the runs warn of, and budgets that differ, which makes a comparison unfair."""
    alarms = list(runs[0].info["alarms"])
    for run, arm in zip(runs[1:], arms[1:], strict=True):
        alarms += [f"{arm.name} (baseline): {alarm}" for alarm in run.info["alarms"]]
        if not arm.same_budget(arms[0]):
            alarms.append(
                f"{arm.name} (baseline) trained on {arm.budget_ratio(arms[0]):.2f} times as many samples as "
                f"{arms[0].name}: their accuracies are not at the same budget"
            )
    return alarms
