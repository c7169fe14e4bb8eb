"""What MLflow is told about a pipeline run, put together from what the steps wrote."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.files import read_json
from secateur.records.config import PublishConfig
from secateur.records.git import without_credentials
from secateur.records.outputs import RUN_FILE, Outputs, code_version, gather, test_digest
from secateur.records.places import places
from secateur.records.registry.versions import Version
from secateur.records.tracking.bundles import ARTIFACTS, ArmFacts, Bundle, write_bundle
from secateur.records.tracking.facts import (
    arm_figures,
    arm_key,
    arm_params,
    curve_points,
    final_figures,
    flat_params,
    step_points,
    warmup_points,
)
from secateur.records.tracking.gate import make_card

NOTE_LENGTH = 5000  # characters of the summary shown on top of a run


def make_bundle(
    config: PublishConfig,
    outputs: Outputs,
    version: Version,
    registry: str,
    baseline_folders: Sequence[str | Path],
    embed_figures: Sequence[Mapping[str, Any]],
) -> Bundle:
    """Put together what MLflow is told."""
    results = outputs.figures["arms"]
    folders = [outputs.model_folder, *map(Path, baseline_folders)]
    arms = tuple(arm_facts(folder, arm) for folder, arm in zip(folders, results, strict=False))
    points = [p for i, figures in enumerate(embed_figures) for p in step_points("embed", figures, i)]
    points += step_points("ingest", outputs.dataset["counts"]) + warmup_points(read_histories(outputs.model_folder))
    name = config.model_name or f"{outputs.line.partition('/')[0]}-{outputs.run['architecture']['model']}"
    return Bundle(
        dataset=outputs.dataset,
        params=flat_params(outputs.run),
        points=tuple(points),
        figures=final_figures(outputs.figures),
        tags=run_tags(outputs, version, registry),
        arms=arms,
        model_name=name.replace("/", "-").replace(":", "-"),
        rules=dataclasses.asdict(config),
        card=dataclasses.asdict(make_card(outputs.figures, test_digest(outputs.dataset_folder))),
    )


def arm_facts(folder: Path, figures: Mapping[str, Any]) -> ArmFacts:
    """What MLflow is told about one arm.

    Args:
        folder: The arm's run folder.
        figures: Its entry in the results.
    """
    config = read_json(folder / RUN_FILE)["prune_config"]
    return ArmFacts(
        arm_key(config), arm_params(config), tuple(curve_points(read_histories(folder))), arm_figures(figures)
    )


def read_histories(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """The epochs of every seed of an arm."""
    return {seed: read_json(folder / f"seed-{seed}" / "history.json") for seed in read_json(folder / RUN_FILE)["seeds"]}


def run_tags(outputs: Outputs, version: Version, registry: str) -> dict[str, str]:
    """What says where a run's results came from and went to."""
    tags = {
        "mask_digest": outputs.mask.digest,
        "test_digest": test_digest(outputs.dataset_folder),
        "registry": without_credentials(registry),
        "registry_version": version.name,
        "alarms": json.dumps(list(outputs.run.get("alarms", []))),
        "mlflow.note.content": outputs.documents["summary.md"].read_text()[:NOTE_LENGTH],
    }
    if places().run_id is None:
        tags["mlflow.runName"] = outputs.line.partition("/")[2]
    return origin_tags(outputs.dataset) | tags


def origin_tags(dataset: Mapping[str, Any]) -> dict[str, str]:
    """What says where results came from: data, code, image and pipeline run.

    Args:
        dataset: What `dataset.json` says.
    """
    tags = {
        "data_digest": dataset["digest"],
        "dvc_revision": dataset.get("revision"),
        "code_version": code_version(),
        "mlflow.source.git.commit": code_version().partition("+g")[2].partition("-")[0],
        "image": os.environ.get("SECATEUR_IMAGE"),
    }
    return {name: str(value) for name, value in tags.items() if value}


def fill(folder: Path, bundle: Bundle, outputs: Outputs, exported: Callable[[], Path]) -> None:
    """Write a bundle, with the artifacts and the model."""
    gather(outputs, folder / ARTIFACTS)
    write_bundle(folder, bundle)
    exported()


def make_sweep_bundle(
    dataset: Mapping[str, Any],
    model_folders: Sequence[Path],
    results: Mapping[str, Any],
    summary: str,
    embed_figures: Sequence[Mapping[str, Any]],
) -> Bundle:
    """Put together what MLflow is told about a sweep.

    Args:
        dataset: What `dataset.json` says.
        model_folders: The arms' run folders, in the order of the results.
        results: What the comparison measured.
        summary: Its table, Markdown.
        embed_figures: What `embed` counted, for each shard.
    """
    params = [flat_params(read_json(folder / RUN_FILE)) for folder in model_folders]
    shared = {name: value for name, value in params[0].items() if all(p.get(name) == value for p in params)}
    points = [p for i, figures in enumerate(embed_figures) for p in step_points("embed", figures, i)]
    points += step_points("ingest", dataset["counts"]) + warmup_points(read_histories(model_folders[0]))
    arms = [arm_facts(folder, arm) for folder, arm in zip(model_folders, results["arms"], strict=True)]
    tags = origin_tags(dataset) | {"secateur.kind": "sweep", "mlflow.note.content": summary[:NOTE_LENGTH]}
    return Bundle(dataset=dataset, params=shared, points=tuple(points), figures={}, tags=tags, arms=tuple(arms))
