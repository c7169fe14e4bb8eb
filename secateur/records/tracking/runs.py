"""MLflow: one run for each pipeline run, and one below it for each arm.

Importing this imports MLflow, which takes seconds; `secateur.records.places` has what is needed before that.
"""

import fcntl
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException

from secateur.errors import InputError
from secateur.files import read_json, replacing
from secateur.records.git import without_credentials
from secateur.records.places import SQLITE, Places, sqlite_file
from secateur.records.tracking.facts import DIGEST_LENGTH, Point

BATCH = 1000  # metrics that MLflow takes in one call
KEY, ARM, PARENT = "secateur.run", "secateur.arm", "mlflow.parentRunId"  # tags by which a run is found
SETTLE = 1.0  # seconds in which whoever makes the same run at the same time is seen


@dataclass(frozen=True)
class TrackedRun:
    """A run in MLflow that is being written."""

    client: MlflowClient
    run_id: str
    experiment_id: str
    start_time: int  # milliseconds since 1970
    tags: Mapping[str, str]  # when it was opened
    created: bool  # False: somebody else began it, or will end it
    ours: bool  # False: begun by no step of this pipeline run; it is logged to, and its owner ends it
    steps: dict[str, set[int]] = field(default_factory=dict)  # of each curve, as far as it was asked for


def open_client(tracking_uri: str) -> MlflowClient:
    """Connect to a store; a SQLite file is made if need be, by one process at a time.

    Raises:
        InputError: The store cannot be used.
    """
    try:
        with one_at_a_time(tracking_uri):
            file = sqlite_file(tracking_uri)
            if file and not file.exists():
                with replacing(file) as temporary:  # a process that is killed leaves no half-made store
                    MlflowClient(tracking_uri=f"{SQLITE}{temporary}", registry_uri=f"{SQLITE}{temporary}")
            return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        shown, reason = without_credentials(tracking_uri), without_credentials(str(error))
        raise InputError(f"tracking_uri must be a store that MLflow can use, got {shown}: {reason}") from error


def one_at_a_time(tracking_uri: str) -> AbstractContextManager[None]:
    """Keep others on this machine off a SQLite file; a server looks after itself."""
    file = sqlite_file(tracking_uri)
    return locked(file.with_name(f".{file.name}.lock")) if file else nullcontext()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def find_experiment(client: MlflowClient, name: str, tracking_uri: str) -> str:
    """The id of an experiment, made if need be; beside a SQLite file lie its artifacts."""
    file = sqlite_file(tracking_uri)
    location = (file.parent / "mlartifacts").as_uri() if file else None
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:  # another process was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(f"experiment must be an active one, got {name!r}, which is deleted")
    return str(found.experiment_id)


def open_run(where: Places, name: str) -> TrackedRun:
    """Go on with the run that the environment names, by MLflow's id or by the pipeline run's key, or begin one.

    Args:
        where: Store, experiment and run.
        name: What a new run is called.

    Raises:
        InputError: The store, the experiment or the run cannot be used.
    """
    client = open_client(where.tracking_uri)
    if where.run_id is not None:
        try:
            run = client.get_run(where.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise InputError(f"MLFLOW_RUN_ID must be a run of the store, got {where.run_id!r}: {error}") from error
        return as_tracked(client, run, ours=where.key is not None and run.data.tags.get(KEY) == where.key)
    experiment = find_experiment(client, where.experiment, where.tracking_uri)
    if where.key is not None:
        return as_tracked(client, the_run(client, experiment, {KEY: where.key}, name))
    run = create_run(client, experiment, {}, name)
    client.set_tag(run.info.run_id, KEY, run.info.run_id)  # whoever sends later what is kept for it knows it by that
    return as_tracked(client, run, created=True)


def find_run(client: MlflowClient, run_id: str) -> TrackedRun | None:
    """Another pipeline run's run; None where the store has none, or a deleted one."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return as_tracked(client, run, ours=False) if run.info.lifecycle_stage == "active" else None


def open_arm(run: TrackedRun, arm: str, name: str) -> TrackedRun:
    """The run of one arm below the pipeline run's."""
    tags = {ARM: arm, PARENT: run.run_id}
    return as_tracked(run.client, the_run(run.client, run.experiment_id, tags, name))


def as_tracked(client: MlflowClient, run: Run, *, created: bool = False, ours: bool = True) -> TrackedRun:
    """A run with the client that writes it."""
    info = run.info
    return TrackedRun(client, info.run_id, info.experiment_id, info.start_time, run.data.tags, created, ours)


def create_run(client: MlflowClient, experiment: str, tags: Mapping[str, str], name: str) -> Run:
    """Begin a run."""
    source = {"mlflow.source.name": "secateur", "mlflow.source.type": "JOB"}
    return client.create_run(experiment, run_name=name, tags=source | dict(tags))


def the_run(client: MlflowClient, experiment: str, tags: Mapping[str, str], name: str) -> Run:
    """The one run with these tags, made if there is none.

    Where several processes make it at the same time, the earliest stays and the others are deleted by their makers.
    """
    wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())

    def earliest() -> Run | None:
        found = client.search_runs([experiment], wanted)
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    with one_at_a_time(client.tracking_uri):
        first = earliest()
        if first is not None:
            return first
        made = create_run(client, experiment, tags, name)
        if sqlite_file(client.tracking_uri):
            return made
    time.sleep(SETTLE)
    first = earliest() or made
    if first.info.run_id != made.info.run_id:
        client.delete_run(made.info.run_id)
    return first


def log_params(run: TrackedRun, params: Mapping[str, str]) -> None:
    """Log the parameters."""
    entries = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entries), 100):
        run.client.log_batch(run.run_id, params=entries[start : start + 100])


def log_metrics(
    run: TrackedRun, points: Sequence[Point], figures: Mapping[str, float], model_id: str | None = None
) -> None:
    """Log curves and final figures, in few calls.

    A step of a curve that is there already is left as it is, so that what was told while a step worked, and is told
    again at the end, is there once. The times are those of the training, not of this call.

    Args:
        run: Where.
        points: Of the curves.
        figures: By name, as of the last epoch.
        model_id: The model that the final figures are about.
    """
    last = max((p.step for p in points), default=0)
    end = max((p.seconds for p in points), default=0.0)
    final = [Point(name, value, last, end) for name, value in figures.items()]
    metrics = [as_metric(run, p) for p in new_points(run, points)]
    metrics += [as_metric(run, p, model_id) for p in new_points(run, final)]
    for start in range(0, len(metrics), BATCH):
        run.client.log_batch(run.run_id, metrics=metrics[start : start + BATCH])
    for metric in metrics:
        run.steps[metric.key].add(metric.step)


def as_metric(run: TrackedRun, point: Point, model_id: str | None = None) -> Metric:
    """A point in MLflow's words, at the time at which the training had it."""
    time_ms = run.start_time + round(1000 * point.seconds)
    return Metric(point.name, point.value, time_ms, point.step, model_id=model_id)


def new_points(run: TrackedRun, points: Sequence[Point]) -> list[Point]:
    """Those points whose curve has none at that step."""
    for name in {p.name for p in points} - run.steps.keys():
        run.steps[name] = {metric.step for metric in run.client.get_metric_history(run.run_id, name)}
    return [p for p in points if p.step not in run.steps[p.name]]


def log_dataset(run: TrackedRun, info: Mapping[str, Any]) -> None:
    """Log which data set went in; `info` is what its `dataset.json` says."""
    entry = Dataset(
        name=info["name"],
        digest=info["digest"][:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {"mlflow.source.name": f"secateur data set {info['name']}, {info['digest']}"}}),
        profile=json.dumps(info["counts"]),
    )
    run.client.log_inputs(run.run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "training")])])


def read_artifact(client: MlflowClient, run_id: str | None, name: str) -> dict[str, Any] | None:
    """A JSON artifact of a run; None where there is none."""
    if run_id is None or name not in {entry.path for entry in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory(prefix="secateur-artifact-") as temporary:
        found: dict[str, Any] = read_json(client.download_artifacts(run_id, name, temporary))
    return found


def set_tags(run: TrackedRun, tags: Mapping[str, str]) -> None:
    """Set tags, all at once."""
    run.client.log_batch(run.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def end_run(run: TrackedRun, status: str) -> None:
    """End the arms below a run, and the run if it is ours, unless they have ended.

    A failure that cannot be noted hides no other error.
    """
    try:
        below = run.client.search_runs([run.experiment_id], f"tags.`{PARENT}` = '{run.run_id}'")
        arms = [each for each in below if ARM in each.data.tags]
        for each in [*arms, *([run.client.get_run(run.run_id)] if run.ours else [])]:
            if each.info.status == "RUNNING" or (each.info.run_id == run.run_id and status == "FINISHED"):
                run.client.set_terminated(each.info.run_id, status)
    except MlflowException:
        if status != "FAILED":
            raise
