"""A sweep in MLflow: one run for the comparison, and one below it for each arm."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.dataset.table import INFO_FILE
from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.packing import make_sweep_bundle
from secateur.records.tracking import spool
from secateur.records.tracking.bundles import ARTIFACTS, write_bundle
from secateur.records.tracking.delivery import deliver, ready

NAME = "sweep"


def record_sweep(
    dataset_folder: str | Path,
    model_folders: Sequence[str | Path],
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
    embed_figures: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Log a sweep, and give the id of its MLflow run.

    Args:
        dataset_folder: The table.
        model_folders: The arms' run folders, in the order of the results.
        results_file: What the comparison measured, JSON.
        report_file: The comparison, HTML.
        summary_file: Its table, Markdown.
        embed_figures: What `embed` counted, for each shard.

    Raises:
        InputError: Results of other arms, or MLflow cannot be used.
    """
    where = ready()
    dataset, results = read_json(Path(dataset_folder) / INFO_FILE), read_json(results_file)
    if results["dataset"]["digest"] != dataset["digest"] or len(results["arms"]) != len(model_folders):
        raise InputError(f"results must be of the {len(model_folders)} models, got those of {len(results['arms'])}")
    with tempfile.TemporaryDirectory(prefix="secateur-record-") as scratch:
        folder = Path(scratch) / spool.BUNDLE

        def pack(run_id: str, tags: Mapping[str, str]) -> Path:
            summary = Path(summary_file).read_text()
            (folder / ARTIFACTS).mkdir(parents=True)
            documents = {"report.html": report_file, "results.json": results_file, "summary.md": summary_file}
            for name, file in documents.items():
                shutil.copyfile(file, folder / ARTIFACTS / name)
            models = [Path(model) for model in model_folders]
            write_bundle(folder, make_sweep_bundle(dataset, models, results, summary, embed_figures))
            return folder

        return deliver(where, NAME, pack).run_id
