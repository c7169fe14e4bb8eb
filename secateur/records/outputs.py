"""What the other steps wrote, read and found to belong together."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import secateur
from secateur.dataset import open_table
from secateur.dataset.table import INFO_FILE
from secateur.errors import InputError
from secateur.files import read_json
from secateur.pruning.mask import Mask, read_mask
from secateur.records.git import GitError, git
from secateur.records.registry.versions import version_line
from secateur.records.tracking.bundles import MASK

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Outputs:
    """What the other steps wrote, read and found to belong together."""

    mask: Mask
    run: Mapping[str, Any]  # run.json
    dataset: Mapping[str, Any]  # dataset.json
    figures: Mapping[str, Any]  # results.json
    model_folder: Path
    mask_folder: Path
    documents: Mapping[str, Path]  # artifacts by the name that they get
    dataset_folder: Path

    @property
    def line(self) -> str:
        """What the mask's versions are counted under."""
        return version_line(self.dataset["name"], self.run["method"], self.run["keep"])


def read_outputs(
    dataset_folder: str | Path,
    model_folder: str | Path,
    mask_folder: str | Path,
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
) -> Outputs:
    """Read what the other steps wrote.

    Raises:
        InputError: A mask, model or evaluation of something else.
    """
    mask = read_mask(mask_folder)
    outputs = Outputs(
        mask=mask,
        run=read_json(Path(model_folder) / RUN_FILE),
        dataset=read_json(Path(dataset_folder) / INFO_FILE),
        figures=read_json(results_file),
        model_folder=Path(model_folder),
        mask_folder=Path(mask_folder),
        documents={
            "results.json": Path(results_file),
            "report.html": Path(report_file),
            "summary.md": Path(summary_file),
        },
        dataset_folder=Path(dataset_folder),
    )
    digest = outputs.dataset["digest"]
    for name, other in (("mask", mask.meta["dataset"]["digest"]), ("model", outputs.run["dataset"]["digest"])):
        if other != digest:
            raise InputError(f"{name} must be of data set {digest[:12]}, got {other[:12]}")
    if outputs.figures["mask_digest"] != mask.digest:
        raise InputError(f"results must be of mask {mask.digest[:12]}, got {outputs.figures['mask_digest'][:12]}")
    return outputs


def test_digest(dataset_folder: str | Path) -> str:
    """SHA-256 over ids and labels of the test split: accuracies under the same digest can be compared."""
    test = open_table(dataset_folder).part("test")
    lines = (f"{name} {label}\n" for name, label in zip(test.sample_id, test.label, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def facts(outputs: Outputs, run_id: str) -> dict[str, Any]:
    """What `version.json` says: where a mask came from."""
    meta, run = outputs.mask.meta, outputs.run
    return {
        "mask_digest": outputs.mask.digest,
        "dataset": {"name": outputs.dataset["name"], "digest": outputs.dataset["digest"]},
        "method": run["method"],
        "keep_requested": meta["keep_requested"],
        "keep_achieved": meta["keep_achieved"],
        "config": run["prune_config"],
        "train_config": run["train_config"],
        "seed": meta["seed"],
        "seeds": run["seeds"],
        "mlflow": {"run_id": run_id, "model_uri": f"runs:/{run_id}/model"},
        "code_version": code_version(),
        "versions": run.get("versions", {}),
    }


@cache
def code_version() -> str:
    """The version of this package, with the git commit where it runs from its own checkout."""
    folder = Path(secateur.__file__).parent
    try:
        git("ls-files", "--error-unmatch", "__init__.py", folder=folder)
        commit = git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", folder=folder)
    except (GitError, InputError):
        return secateur.__version__
    return f"{secateur.__version__}+g{commit}"


def gather(outputs: Outputs, folder: Path) -> None:
    """Put all artifacts of the run into one folder, under names that tell a browser what they are."""
    shutil.copytree(outputs.mask_folder, folder / MASK)
    shutil.copyfile(outputs.model_folder / RUN_FILE, folder / RUN_FILE)
    for name, file in outputs.documents.items():
        shutil.copyfile(file, folder / name)
