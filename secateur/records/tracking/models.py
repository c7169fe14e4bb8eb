"""The model of a run in MLflow: logged, registered, and made champion if it may be.

Importing this imports MLflow.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from secateur.files import read_json
from secateur.records.places import sqlite_file
from secateur.records.tracking.exporting import EXAMPLE_FILE, INFO_FILE, PROGRAM_FILE
from secateur.records.tracking.gate import Decision
from secateur.records.tracking.runs import SETTLE, TrackedRun

logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip, which uv does not install

MODEL = "model"
CANDIDATE, CHAMPION = "candidate", "champion"  # aliases: of the newest version that was refused, of the one in use
REGISTERED = "mlflow.modelVersions"  # MLflow's own tag, by which its UI links a model to its versions
EXAMPLE_BYTES = 4 * 2**20  # MLflow writes an example as text, which is no use for large pictures


def log_model(run: TrackedRun, export: Path, name: str, params: Mapping[str, str]) -> LoggedModel:
    """Log the exported network as a model of the run and register it, unless that was done.

    Args:
        run: Where.
        export: What `secateur.records.tracking.exporting` wrote.
        name: In the model registry.
        params: Shown beside the model.
    """
    model = ready_model(run, export, params)
    if REGISTERED not in model.tags:
        register(run, name, model)
    return model


def ready_model(run: TrackedRun, export: Path, params: Mapping[str, str]) -> LoggedModel:
    """Log the exported network as a model of the run, unless that was done."""
    found = run.client.search_logged_models([run.experiment_id], f"source_run_id='{run.run_id}'")
    for model in found:
        if model.status == LoggedModelStatus.READY:
            return model
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
    shutil.copyfile(export / PROGRAM_FILE, data / PROGRAM_FILE)
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
    """Make the model the newest version of a registered one."""
    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Without a server, MLflow would look for `models:/...` in this process's default store.
    served = run.client.tracking_uri.startswith("http")
    source = f"models:/{model.model_id}" if served else model.artifact_location
    version = run.client.create_model_version(name, source, run.run_id, model_id=model.model_id)
    names = json.dumps([{"name": name, "version": version.version}])
    run.client.set_logged_model_tags(model.model_id, {REGISTERED: names})


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that has an alias; None where none has."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def own_version(run: TrackedRun, name: str) -> ModelVersion:
    """The run's version of a registered model."""
    found = run.client.search_model_versions(f"name = '{name}' and run_id = '{run.run_id}'")
    return max(found, key=lambda version: int(version.version))


def settle_candidate(run: TrackedRun, name: str, decision: Decision) -> None:
    """Note the decision at the run's version of a registered model: whether it is the newest that stays candidate."""
    version, before = own_version(run, name), holder(run.client, name, CANDIDATE)
    run.client.set_model_version_tag(name, version.version, "promotion", decision.sentence)
    if not decision.promoted:
        if before is None or int(before.version) < int(version.version):
            run.client.set_registered_model_alias(name, CANDIDATE, version.version)
    elif before is not None and before.version == version.version:
        run.client.delete_registered_model_alias(name, CANDIDATE)


def crown(run: TrackedRun, name: str, before: ModelVersion | None) -> ModelVersion | None:
    """Make the run's version of a registered model its champion, unless somebody else became so meanwhile.

    MLflow has no way to do that in one step. What somebody does at the same moment shows when one looks again.

    Args:
        run: Whose version.
        name: Of the registered model.
        before: The champion that it was compared with.

    Returns:
        The champion now.
    """
    now = holder(run.client, name, CHAMPION)
    if (now and now.version) != (before and before.version):
        return now
    run.client.set_registered_model_alias(name, CHAMPION, own_version(run, name).version)
    if sqlite_file(run.client.tracking_uri) is None:  # else nobody else is at it, see `one_at_a_time`
        time.sleep(SETTLE)
    return holder(run.client, name, CHAMPION)
