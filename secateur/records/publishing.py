"""Publishing what a pipeline run made: the mask as a version of the registry, then all of it in MLflow."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.config import PublishConfig
from secateur.records.describing import describe, make_cards
from secateur.records.git import without_credentials
from secateur.records.outputs import RUN_FILE, Outputs, read_outputs
from secateur.records.packing import fill, make_bundle
from secateur.records.registry.repository import open_or_create
from secateur.records.registry.versions import Version, publish_mask
from secateur.records.tracking import spool
from secateur.records.tracking.bundles import ARTIFACTS, COMPLETED, EXPORT
from secateur.records.tracking.delivery import deliver, ready
from secateur.records.tracking.exporting import exporting

__all__ = ["PublishConfig", "Published", "publish"]


@dataclass(frozen=True)
class Published:
    """Where the results of a run are."""

    version: str  # tag in the registry, such as digits/multimodal-0.7/v1
    run_id: str  # of MLflow
    mask_digest: str
    registry: str
    tracking_uri: str
    created: bool  # False: the same mask had this version already
    promotion: str  # whether the model became champion, and why


def publish(
    config: PublishConfig,
    dataset_folder: str | Path,
    model_folder: str | Path,
    mask_folder: str | Path,
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
    baseline_folders: Sequence[str | Path] = (),
    embed_figures: Sequence[Mapping[str, Any]] = (),
) -> Published:
    """Publish a mask and the model trained with it.

    The version comes first, and the run gets its name last: a run with a version always names one that is there.
    A step that failed half-way can be run again; the same mask has one version, however often it is published. Where
    MLflow has gone away since the pipeline run began, what it is to be told is kept, and sent later.

    Args:
        config: Under which names.
        dataset_folder: The table.
        model_folder: The pruned arm's run folder.
        mask_folder: Its mask and trajectory.
        results_file: What the evaluation measured, JSON.
        report_file: The report, HTML.
        summary_file: A summary, Markdown.
        baseline_folders: The run folders of the other arms, in the order of the results.
        embed_figures: What `embed` counted, for each shard.

    Raises:
        InputError: The parts do not belong together, or the registry or MLflow cannot be used.
    """
    where = ready()
    if not (Path(model_folder) / RUN_FILE).is_file():
        raise InputError(f"model must be a folder with {RUN_FILE}, got {str(model_folder)!r}")
    seed = read_json(Path(model_folder) / RUN_FILE)["seeds"][0]
    with tempfile.TemporaryDirectory(prefix="secateur-publish-") as scratch:
        folder = Path(scratch) / spool.BUNDLE
        # First of all: everything else is done by the time that it ends.
        with exporting(model_folder, seed, dataset_folder, folder / EXPORT) as exported:
            outputs = read_outputs(dataset_folder, model_folder, mask_folder, results_file, report_file, summary_file)
            registry = open_or_create(where.registry, where.store)

            versions: list[Version] = []

            def pack(run_id: str, tags: Mapping[str, str]) -> Path | None:
                done = version_published(run_id, tags, outputs.mask.digest)
                if done is not None:
                    versions.append(done)
                    return None
                said = describe(outputs, dataset_folder, run_id, where.tracking_uri)
                versions.append(release(config, outputs, registry, dataset_folder, said, folder / ARTIFACTS))
                bundle = make_bundle(config, outputs, versions[0], registry, baseline_folders, embed_figures)
                fill(folder, replace(bundle, completes=other_run(versions[0], said)), outputs, exported)
                return folder

            delivered = deliver(where, outputs.line.partition("/")[2], pack)
    return Published(
        version=versions[0].name,
        run_id=delivered.run_id,
        mask_digest=outputs.mask.digest,
        registry=without_credentials(registry),
        tracking_uri=without_credentials(where.tracking_uri),
        created=versions[0].created,
        promotion=delivered.promotion,
    )


def release(
    config: PublishConfig,
    outputs: Outputs,
    registry: str,
    dataset_folder: str | Path,
    said: Mapping[str, Any],
    artifacts: Path,
) -> Version:
    """Make the mask a version of the registry, and put its cards among the artifacts of the run."""
    cards = make_cards(said)
    version = publish_mask(
        registry,
        outputs.mask_folder,
        outputs.line,
        said,
        cards=cards,
        dataset_folder=dataset_folder,
        pictures=config.store_data,
    )
    artifacts.mkdir(parents=True)
    for card, text in cards.items():
        (artifacts / card).write_text(text.replace("{version}", version.name))
    return version


def other_run(version: Version, said: Mapping[str, Any]) -> str:
    """The MLflow run of an earlier publisher that the version names, if that had the same model; else empty."""
    named = version.says.get("mlflow", {}).get("run_id")
    same = named and named != said["mlflow"]["run_id"] and version.says.get("model") == said["model"]
    return str(named) if same else ""


def version_published(run_id: str, tags: Mapping[str, str], mask_digest: str) -> Version | None:
    """The version that an MLflow run has published already, in an earlier attempt of the step, with all figures.

    Raises:
        InputError: It has published another mask.
    """
    if "registry_version" not in tags or COMPLETED in tags:
        return None
    if tags["mask_digest"] != mask_digest:
        raise InputError(
            f"MLFLOW_RUN_ID must be a run that publishes one mask, got {run_id}, "
            f"which has published {tags['mask_digest'][:12]}"
        )
    return Version(tags["registry_version"], mask_digest, created=False)
