"""MLflow: one run for each pipeline run, and the model it made in the model registry.

Importing this imports MLflow, which takes seconds; `secateur.records.places` has what is needed before that.
"""

import fcntl
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.exporting import EXAMPLE_FILE, INFO_FILE, PROGRAM_FILE
from secateur.records.facts import DIGEST_LENGTH, Point
from secateur.records.git import without_credentials
from secateur.records.places import Places, sqlite_file

logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip, which uv does not install

MODEL = "model"
ALIAS = "candidate"
REGISTERED = "mlflow.modelVersions"  # MLflow's own tag, by which its UI links a model to its versions
BATCH = 1000  # metrics that MLflow takes in one call
EXAMPLE_BYTES = 4 * 2**20  # MLflow writes an example as text, which is no use for large pictures


@dataclass(frozen=True)
class TrackedRun:
    """A run in MLflow that is being written."""

    client: MlflowClient
    run_id: str
    experiment_id: str
    start_time: int  # milliseconds since 1970
    tags: Mapping[str, str]  # when it was opened
    created: bool  # False: somebody else began it


def open_client(tracking_uri: str) -> MlflowClient:
    """Connect to a store; a SQLite file is made if need be, by one process at a time.

    Raises:
        InputError: The store cannot be used.
    """
    file = sqlite_file(tracking_uri)
    try:
        with locked(file.with_name(f".{file.name}.lock")) if file else nullcontext():
            return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise InputError(
            f"tracking_uri must be a store that MLflow can use, got {without_credentials(tracking_uri)}: {error}"
        ) from error


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
    """Go on with the run that the environment names, or begin one.

    Args:
        where: Store, experiment and run.
        name: What a new run is called.

    Raises:
        InputError: The store, the experiment or the run cannot be used.
    """
    client = open_client(where.tracking_uri)
    if where.run_id is None:
        experiment = find_experiment(client, where.experiment, where.tracking_uri)
        tags = {"mlflow.source.name": "secateur", "mlflow.source.type": "JOB"}
        run = client.create_run(experiment, run_name=name, tags=tags)
    else:
        try:
            run = client.get_run(where.run_id)
        except MlflowException as error:
            raise InputError(f"MLFLOW_RUN_ID must be a run of the store, got {where.run_id!r}: {error}") from error
    info = run.info
    return TrackedRun(client, info.run_id, info.experiment_id, info.start_time, run.data.tags, where.run_id is None)


def log_params(run: TrackedRun, params: Mapping[str, str]) -> None:
    """Log the parameters."""
    entries = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entries), 100):
        run.client.log_batch(run.run_id, params=entries[start : start + 100])


def log_metrics(
    run: TrackedRun, points: Sequence[Point], figures: Mapping[str, float], model_id: str | None = None
) -> None:
    """Log curves and final figures, in few calls.

    The times are those of the training, not of this call: logged twice, they are still one point each.

    Args:
        run: Where.
        points: Of the curves.
        figures: By name, as of the last epoch.
        model_id: The model that the final figures are about.
    """
    last = max((p.step for p in points), default=0)
    end = run.start_time + round(1000 * max((p.seconds for p in points), default=0.0))
    metrics = [Metric(p.name, p.value, run.start_time + round(1000 * p.seconds), p.step) for p in points]
    metrics += [Metric(name, value, end, last, model_id=model_id) for name, value in figures.items()]
    for start in range(0, len(metrics), BATCH):
        run.client.log_batch(run.run_id, metrics=metrics[start : start + BATCH])


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


def log_model(run: TrackedRun, export: Path, name: str, params: Mapping[str, str]) -> str:
    """Log the exported network as a model of the run and register it, unless that was done; the model's id.

    Args:
        run: Where.
        export: What `secateur.records.exporting` wrote.
        name: In the model registry.
        params: Shown beside the model.
    """
    found = run.client.search_logged_models([run.experiment_id], f"source_run_id='{run.run_id}'")
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    model = ready[0] if ready else upload_model(run, export, params)
    if REGISTERED not in model.tags:
        register(run, name, model)
    return str(model.model_id)


def upload_model(run: TrackedRun, export: Path, params: Mapping[str, str]) -> LoggedModel:
    """Log the exported network as a model of the run."""
    model = run.client.create_logged_model(
        run.experiment_id, MODEL, source_run_id=run.run_id, params=dict(params), model_type="classifier"
    )
    with tempfile.TemporaryDirectory(prefix="secateur-model-") as temporary:
        folder = Path(temporary) / MODEL
        save_model(folder, export, Model(run_id=run.run_id, model_id=model.model_id, model_uuid=model.model_id))
        run.client.log_model_artifacts(model.model_id, str(folder))
    run.client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return run.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def save_model(folder: Path, export: Path, model: Model) -> None:
    """Write the model folder that `mlflow.pytorch.log_model` would, from a network exported already.

    `mlflow.pytorch` itself would import PyTorch and export the network here, after MLflow's own imports.
    """
    info = read_json(export / INFO_FILE)
    example = np.load(export / EXAMPLE_FILE)
    data = folder.with_name("network")
    model.add_flavor("pytorch", model_data=f"data/{data.name}", pytorch_version=info["torch"], code=None)
    data.mkdir()
    (export / PROGRAM_FILE).rename(data / PROGRAM_FILE)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module="mlflow.pytorch",
        data_path=str(data),
        mlflow_model=model,
        signature=ModelSignature(
            Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, info["classes"]))]),
        ),
        input_example=example if example.nbytes <= EXAMPLE_BYTES else None,
        pip_requirements=[f"{package}=={metadata.version(package)}" for package in ("mlflow", "torch", "numpy")],
    )


def register(run: TrackedRun, name: str, model: LoggedModel) -> None:
    """Make the model the newest version of a registered one, under the alias."""
    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Without a server, MLflow would look for `models:/...` in this process's default store.
    served = run.client.tracking_uri.startswith("http")
    source = f"models:/{model.model_id}" if served else model.artifact_location
    version = run.client.create_model_version(name, source, run.run_id, model_id=model.model_id)
    run.client.set_registered_model_alias(name, ALIAS, version.version)
    names = json.dumps([{"name": name, "version": version.version}])
    run.client.set_logged_model_tags(model.model_id, {REGISTERED: names})


def set_tags(run: TrackedRun, tags: Mapping[str, str]) -> None:
    """Set tags, all at once."""
    run.client.log_batch(run.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def end_run(run: TrackedRun, status: str) -> None:
    """End the run; a failure is noted only if that is possible, so that it does not hide what went wrong."""
    try:
        run.client.set_terminated(run.run_id, status)
    except MlflowException:
        if status != "FAILED":
            raise
