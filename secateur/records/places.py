"""Where results go, as the environment says, and whether somebody is there. Importing this costs nothing."""

import http.client
import os
import re
import ssl
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import InputError
from secateur.records.git import without_credentials
from secateur.state import STATE_VARIABLE

FOLDER = ".secateur"
EXPERIMENT = "secateur"
PATIENCE = 5.0  # seconds
SQLITE = "sqlite:///"
SQLITE_HEADER = b"SQLite format 3\0"


@dataclass(frozen=True)
class Places:
    """Where results go."""

    tracking_uri: str  # MLFLOW_TRACKING_URI, or a SQLite file
    experiment: str  # MLFLOW_EXPERIMENT_NAME
    run_id: str | None  # MLFLOW_RUN_ID: the run of this pipeline run, if somebody began it
    registry: str  # SECATEUR_REGISTRY: git repository of the registry
    store: str | None  # SECATEUR_STORE: DVC remote of a registry that is made here; None: beside it
    key: str | None = None  # SECATEUR_RUN, or Kubeflow's KFP_RUN_ID: what all steps of a pipeline run have in common
    spool: Path = Path(FOLDER, "spool")  # SECATEUR_SPOOL, or in a local state: what MLflow is still to be told


def places(folder: str | Path = FOLDER) -> Places:
    """Read the environment; what it leaves open lies in a folder of the working directory."""
    base = Path(folder).absolute()
    return Places(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{base / 'mlflow.db'}",
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT,
        run_id=os.environ.get("MLFLOW_RUN_ID") or None,
        registry=os.environ.get("SECATEUR_REGISTRY") or str(base / "registry.git"),
        store=os.environ.get("SECATEUR_STORE") or None,
        key=re.sub(r"[^\w.-]+", "-", os.environ.get("SECATEUR_RUN") or os.environ.get("KFP_RUN_ID") or "") or None,
        spool=Path(os.environ.get("SECATEUR_SPOOL") or spool_folder(base)).absolute(),
    )


def spool_folder(base: Path) -> Path:
    """Where what could not be sent is kept: with the state, if that is a folder here, so that it outlives the step."""
    state = os.environ.get(STATE_VARIABLE) or ""
    if "://" in state:
        return Path(tempfile.gettempdir(), "secateur-spool")
    return Path(state, "spool") if state else base / "spool"


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    if not tracking_uri.startswith(SQLITE):
        return None
    return Path(tracking_uri.removeprefix(SQLITE)).absolute()


def check_server(tracking_uri: str) -> None:
    """Check that results can be sent, within about `PATIENCE`, before any work starts.

    Args:
        tracking_uri: Of an MLflow server or a SQLite file; of anything else nothing is checked.

    Raises:
        InputError: No server answers, or the file's folder cannot be written.
    """
    file = sqlite_file(tracking_uri)
    if file is not None:
        check_file(file)
    elif tracking_uri.startswith(("http://", "https://")):
        problems: list[str] = []
        # A thread, because looking up a name knows no time limit.
        asking = threading.Thread(target=lambda: problems.append(ask(tracking_uri)), daemon=True)
        asking.start()
        asking.join(PATIENCE + 0.5)
        problem = problems[0] if problems else f"no answer in {PATIENCE:g} s"
        if problem:
            raise InputError(
                f"tracking_uri must be a server that answers, got {without_credentials(tracking_uri)}: {problem}"
            )


def check_file(file: Path) -> None:
    """Check that a SQLite file can be written, or made.

    Raises:
        InputError: It cannot.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"tracking_uri must be in a folder that can be written, got {str(file)!r}: {error}") from error
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"tracking_uri must be a file that can be written, got {str(file)!r}")
    if file.exists():
        with file.open("rb") as opened:
            begins = opened.read(len(SQLITE_HEADER))
        if begins not in (SQLITE_HEADER, b""):
            raise InputError(f"tracking_uri must be a SQLite file, got something else in {str(file)!r}")


def ask(tracking_uri: str) -> str:
    """Ask a server how it is; what is wrong, or an empty text."""
    try:
        with urllib.request.urlopen(f"{without_credentials(tracking_uri).rstrip('/')}/health", timeout=PATIENCE):
            return ""
    except urllib.error.HTTPError as error:
        # One that wants a password, or knows no such page, is there all the same.
        return "" if error.code < 500 else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        # MLflow has its own settings for certificates; who shows a strange one is there.
        return "" if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
