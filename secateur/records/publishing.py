"""Publishing what a pipeline run made: the mask as a version of the registry, then all of it in MLflow."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.config import PublishConfig
from secateur.records.exporting import exporting
from secateur.records.facts import curve_points, final_figures, flat_params
from secateur.records.git import without_credentials
from secateur.records.outputs import RUN_FILE, Outputs, code_version, facts, gather, read_outputs
from secateur.records.places import Places, check_server, places
from secateur.records.registry import open_or_create
from secateur.records.versions import Version, publish_mask

if TYPE_CHECKING:
    from secateur.records.tracking import TrackedRun

__all__ = ["PublishConfig", "Published", "publish"]

NOTE_LENGTH = 5000  # characters of the summary shown on top of a run


@dataclass(frozen=True)
class Published:
    """Where the results of a run are."""

    version: str  # tag in the registry, such as digits/multimodal-0.7/v1
    run_id: str  # of MLflow
    mask_digest: str
    registry: str
    tracking_uri: str
    created: bool  # False: the same mask had this version already


def publish(
    config: PublishConfig,
    dataset_folder: str | Path,
    model_folder: str | Path,
    mask_folder: str | Path,
    results_file: str | Path,
    report_file: str | Path,
    summary_file: str | Path,
) -> Published:
    """Publish a mask and the model trained with it.

    The version comes first, and the run gets its name last: a run with a version always names one that is there.
    A step that failed half-way can be run again; the same mask has one version, however often it is published.

    Args:
        config: Under which names.
        dataset_folder: The table.
        model_folder: The pruned arm's run folder.
        mask_folder: Its mask and trajectory.
        results_file: What the evaluation measured, JSON.
        report_file: The report, HTML.
        summary_file: A summary, Markdown.

    Raises:
        InputError: The parts do not belong together, or the registry or MLflow cannot be used.
    """
    where = places()
    check_server(where.tracking_uri)
    if not (Path(model_folder) / RUN_FILE).is_file():
        raise InputError(f"model must be a folder with {RUN_FILE}, got {str(model_folder)!r}")
    seed = read_json(Path(model_folder) / RUN_FILE)["seeds"][0]
    with (
        tempfile.TemporaryDirectory(prefix="secateur-publish-") as scratch,
        # First of all: everything else is done by the time that it ends.
        exporting(model_folder, seed, dataset_folder, Path(scratch) / "export") as exported,
    ):
        outputs = read_outputs(dataset_folder, model_folder, mask_folder, results_file, report_file, summary_file)
        registry = open_or_create(where.registry, where.store)
        with tracked(where, outputs) as run:
            done = version_published(run, outputs.mask.digest)
            version = done or publish_mask(registry, mask_folder, outputs.line, facts(outputs, run.run_id))
            if done is None:
                log_all(run, config, outputs, version, registry, exported, Path(scratch))
    return Published(
        version=version.name,
        run_id=run.run_id,
        mask_digest=outputs.mask.digest,
        registry=without_credentials(registry),
        tracking_uri=without_credentials(where.tracking_uri),
        created=version.created,
    )


@contextmanager
def tracked(where: Places, outputs: Outputs) -> Iterator["TrackedRun"]:
    """The MLflow run; one begun here ends as failed if the block fails, another's is left for a second attempt."""
    from secateur.records import tracking  # only now: MLflow takes seconds to import

    run = tracking.open_run(where, outputs.line.partition("/")[2])
    try:
        yield run
    except BaseException:
        if run.created:
            tracking.end_run(run, "FAILED")
        raise


def version_published(run: "TrackedRun", mask_digest: str) -> Version | None:
    """The version that this very run has published already, in an earlier attempt of the step.

    Raises:
        InputError: It has published another mask.
    """
    if "registry_version" not in run.tags:
        return None
    if run.tags["mask_digest"] != mask_digest:
        raise InputError(
            f"MLFLOW_RUN_ID must be a run that publishes one mask, got {run.run_id}, "
            f"which has published {run.tags['mask_digest'][:12]}"
        )
    return Version(run.tags["registry_version"], mask_digest, created=False)


def log_all(
    run: "TrackedRun",
    config: PublishConfig,
    outputs: Outputs,
    version: Version,
    registry: str,
    exported: Callable[[], Path],
    scratch: Path,
) -> None:
    """Log everything about a run, and its version last."""
    from secateur.records import tracking

    params = flat_params(outputs.run)
    tracking.log_params(run, params)
    tracking.log_dataset(run, outputs.dataset)
    documents = scratch / "artifacts"
    gather(outputs, documents)
    run.client.log_artifacts(run.run_id, str(documents))
    name = config.model_name or f"{outputs.line.partition('/')[0]}-{outputs.run['architecture']['model']}"
    model_id = tracking.log_model(run, exported(), name.replace("/", "-").replace(":", "-"), params)
    histories = {
        seed: read_json(outputs.model_folder / f"seed-{seed}" / "history.json") for seed in outputs.run["seeds"]
    }
    tracking.log_metrics(run, curve_points(histories), final_figures(outputs.figures), model_id)
    tracking.set_tags(
        run,
        {
            "mask_digest": outputs.mask.digest,
            "data_digest": outputs.dataset["digest"],
            "code_version": code_version(),
            "registry": without_credentials(registry),
            "registry_version": version.name,
            "alarms": json.dumps(list(outputs.run.get("alarms", []))),
            "mlflow.note.content": outputs.documents["summary.md"].read_text()[:NOTE_LENGTH],
        },
    )
    tracking.end_run(run, "FINISHED")
