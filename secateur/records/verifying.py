"""Whether all that a version names is there, and is what it was: in git, in the store, and in MLflow."""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from secateur.dataset.rows import image_hash
from secateur.errors import InputError
from secateur.pruning.mask import MASK_FILE, TRAJECTORY_FILE, read_mask, read_trajectory
from secateur.records.describing import weights_digest
from secateur.records.git import GitError, git, without_credentials
from secateur.records.places import check_server, sqlite_file
from secateur.records.registry.catalogue import fetch, pointer
from secateur.records.registry.checkout import Opened
from secateur.records.registry.tables import TABLE
from secateur.records.registry.versions import MASKS
from secateur.records.registry.withdrawal import picture
from secateur.records.tracking.exporting import PROGRAM_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ARTIFACTS = "mlartifacts"  # the folder beside a SQLite file
NETWORK = f"data/network/{PROGRAM_FILE}"


@dataclass(frozen=True)
class Check:
    """One thing that a version names."""

    version: str
    what: str
    fine: bool
    detail: str  # what was found; why it is not fine


def verify(version: Opened, tracking_uri: str | None = None) -> Iterator[Check]:
    """Check all that a version names.

    Args:
        version: What `checkout.open_version` gave.
        tracking_uri: The MLflow store with its run, if not the one that the version names.
    """
    name = version.facts["version"]
    tracking_uri = tracking_uri or find_tracking(version.facts["mlflow"]["tracking_uri"])
    checks: list[tuple[str, Callable[[], str]]] = [
        ("tag", lambda: check_tag(version)),
        ("mask", lambda: version.published_mask().digest),
        ("trajectory", lambda: check_trajectory(version)),
        ("index", lambda: f"{len(version.labels())} samples"),
    ]
    if pointer(version.tree, version.facts, TABLE) is not None:
        checks.append(("table", lambda: check_table(version)))
    for what, check in checks:
        yield attempt(name, what, check)
    yield from verify_tracked(version, tracking_uri)


def attempt(version: str, what: str, check: Callable[[], str]) -> Check:
    """Make one check."""
    try:
        return Check(version, what, True, check())
    except (InputError, GitError, OSError, ValueError, KeyError) as error:
        return Check(version, what, False, " ".join(str(error).split()))


def check_tag(version: Opened) -> str:
    """The tag is there, and the folder is still as it was tagged."""
    name = version.facts["version"]
    reference = f"refs/tags/{name}"
    depth = ("--depth=1",) if git("rev-parse", "--is-shallow-repository", folder=version.tree) == "true" else ()
    git("fetch", "--quiet", "--no-tags", *depth, "origin", f"+{reference}:{reference}", folder=version.tree)
    then, now = (git("rev-parse", f"{at}:{MASKS}/{name}", folder=version.tree) for at in (reference, "HEAD"))
    if then != now:
        raise InputError(f"folder of {name} must be {then[:12]} as it was tagged, got {now[:12]}")
    return git("rev-parse", f"{reference}^{{commit}}", folder=version.tree)


def check_trajectory(version: Opened) -> str:
    """The trajectory can be read, and is of as many samples as the mask."""
    path, samples = fetch(version.store, version.tree, version.facts, TRAJECTORY_FILE), len(version.published_mask())
    return f"{len(read_trajectory(path.parent, samples))} epochs"


def check_table(version: Opened) -> str:
    """The table is there; ids, labels and splits have the digest, and each picture is the one that its id names."""
    table = version.table()
    for i, sample_id in enumerate(table.sample_id.tolist()):
        found = image_hash(table.image(i))
        if picture(sample_id) != found:
            raise InputError(f"picture must have the hash that its id is, {sample_id}, got {found}")
    return table.info.digest


def verify_tracked(version: Opened, tracking_uri: str) -> Iterator[Check]:
    """Check what a version names in MLflow; a store that does not answer is one check that is not fine."""
    name = version.facts["version"]
    try:
        client = connect(tracking_uri)
    except InputError as error:
        yield Check(name, "MLflow", False, str(error))
        return
    yield attempt(name, "run", lambda: check_run(client, version.facts))
    yield attempt(name, "run's mask", lambda: check_logged_mask(client, version.facts))
    yield attempt(name, "model", lambda: check_model(client, version.facts))


def find_tracking(named: str) -> str:
    """The MLflow store that a version names; where that is a file of another machine, the one of the environment."""
    file = sqlite_file(named)
    return named if file is None or file.is_file() else os.environ.get("MLFLOW_TRACKING_URI", named)


def connect(tracking_uri: str) -> "MlflowClient":
    """Connect to an MLflow store that is there already.

    Raises:
        InputError: It is not, or does not answer.
    """
    file = sqlite_file(tracking_uri)
    if file is not None and not file.is_file():
        raise InputError(f"tracking_uri must be a store that is there, got {tracking_uri}")
    check_server(tracking_uri)
    from secateur.records.tracking.runs import open_client  # only now: MLflow takes seconds to import

    return open_client(tracking_uri)


def check_run(client: "MlflowClient", facts: dict[str, Any]) -> str:
    """The run is there, and is about this version."""
    run_id = facts["mlflow"]["run_id"]
    with in_words(f"MLflow must hold run {run_id}"):
        run = client.get_run(run_id)
    wanted = {"mask_digest": facts["mask_digest"], "data_digest": facts["dataset"]["digest"]}
    for tag, value in (wanted | {"registry_version": facts["version"]}).items():
        if run.data.tags.get(tag) != value:
            raise InputError(f"{tag} of run {run_id} must be {value[:12]}, got {run.data.tags.get(tag)!r}")
    if run.info.lifecycle_stage != "active":
        raise InputError(f"run {run_id} must not be deleted, got one that is")
    return str(run_id)


def check_logged_mask(client: "MlflowClient", facts: dict[str, Any]) -> str:
    """The run's own copy of the mask is the version's."""
    with in_words("MLflow must hold the run's mask"), tempfile.TemporaryDirectory() as temporary:
        uri = client.get_run(facts["mlflow"]["run_id"]).info.artifact_uri
        digest = read_mask(artifact(client, f"{uri}/mask/{MASK_FILE}", Path(temporary))).digest
    if digest != facts["mask_digest"]:
        raise InputError(f"mask of the run must have the digest {facts['mask_digest'][:12]}, got {digest[:12]}")
    return digest


def check_model(client: "MlflowClient", facts: dict[str, Any]) -> str:
    """The model is there, and has the weights that the version names."""
    with in_words("MLflow must hold the run's model"), tempfile.TemporaryDirectory() as temporary:
        model = find_model(client, facts["mlflow"]["run_id"])
        digest = program_digest(artifact(client, f"{model.artifact_location}/{NETWORK}", Path(temporary)))
    if digest != facts["model"]["weights"]:
        raise InputError(f"weights must have the digest {facts['model']['weights'][:12]}, got {digest[:12]}")
    return digest


def find_model(client: "MlflowClient", run_id: str) -> "LoggedModel":
    """The model of a run.

    Raises:
        InputError: It has none.
    """
    run = client.get_run(run_id)
    found = client.search_logged_models([run.info.experiment_id], f"source_run_id='{run_id}'")
    for model in found:
        if model.status == "READY":
            return model
    raise InputError(f"run {run_id} must have a model, got none")


@contextmanager
def in_words(rule: str) -> Iterator[None]:
    """Say in one sentence what MLflow does not hold; what it raises for that depends on the store."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = without_credentials(" ".join(str(error).split()))
        raise InputError(f"{rule}, got {type(error).__name__}: {reason}") from error


def artifact(client: "MlflowClient", uri: str, folder: Path) -> Path:
    """An artifact as a file here; a store that was moved together with its SQLite file is found too."""
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        path = Path(unquote(parsed.path))
        file = sqlite_file(client.tracking_uri)
        if not path.exists() and file is not None and ARTIFACTS in path.parts:
            path = file.parent.joinpath(*path.parts[path.parts.index(ARTIFACTS) :])
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        return path
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=client.tracking_uri))


def program_digest(path: Path) -> str:
    """The digest of the weights in an exported program, see `weights_digest`; nothing in it is run or unpickled."""
    with zipfile.ZipFile(path) as archive:
        (listed,) = [name for name in archive.namelist() if name.endswith("/data/weights/model_weights_config.json")]
        folder = listed.rpartition("/")[0]
        entries = json.loads(archive.read(listed))["config"].values()
        return weights_digest(archive.read(f"{folder}/{entry['path_name']}") for entry in entries)
