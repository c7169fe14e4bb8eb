"""`secateur doctor`: whether a laptop or a cluster is ready for a first run, one line for each thing."""

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import secateur
from secateur.errors import InputError
from secateur.pipelines.kubernetes_checks import KubernetesChecks, SkipError
from secateur.pipelines.resources import Cluster, read_cluster
from secateur.pipelines.submitting import ClusterFile, Host, Namespace, Overrides, Preset
from secateur.records.git import is_url, without_credentials
from secateur.records.places import check_server, places
from secateur.records.registry.repository import absolute, has_commit
from secateur.state import STATE_VARIABLE, DurableState

FREE_GB = 5  # for a first run and its scratch files
SHOWN = ("torch", "kfp", "mlflow", "dvc")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    mark: str  # "ok", "failed", or "-" for what was not checked
    name: str
    text: str


def doctor(
    home: Annotated[Path, typer.Option(help="folder that keeps runs, cache, state and results")] = Path(".secateur"),
    host: Host = "",
    namespace: Namespace = "",
    preset: Preset = "",
    cluster: ClusterFile = None,
    overrides: Overrides = None,
) -> None:
    """Check what a run needs, here and on Kubeflow, before the first one; exit code 1 if something is missing."""
    wanted = read_cluster(cluster, overrides or (), preset)
    findings = list(examined(checks(home.absolute(), host, namespace, wanted)))
    if any(finding.mark == "failed" for finding in findings):
        raise typer.Exit(1)


def checks(home: Path, host: str, namespace: str, wanted: Cluster) -> dict[str, Callable[[], str]]:
    """What is checked, in this order; each gives a sentence, or raises."""
    cluster = KubernetesChecks(namespace, wanted)
    return {
        "versions": versions,
        "disk": lambda: disk(home),
        "gpu": gpu,
        "mlflow": lambda: mlflow(home),
        "registry": lambda: registry(home),
        "state": lambda: state(home),
        "kubeflow": lambda: kubeflow(host, namespace),
        "settings": cluster.settings,
        "secrets": cluster.secrets,
        "claim": cluster.claim,
        "nodes": cluster.nodes,
    }


def examined(todo: Mapping[str, Callable[[], str]]) -> Iterable[Finding]:
    """Check one thing after the other, and print each finding when it is there."""
    for name, check in todo.items():
        try:
            finding = Finding("ok", name, check())
        except SkipError as reason:
            finding = Finding("-", name, str(reason))
        except Exception as error:  # of whatever library: what it says is the finding
            kind = "" if isinstance(error, InputError | typer.TyperException) else f"{type(error).__name__}: "
            finding = Finding("failed", name, kind + without_credentials(" ".join(str(error).split())))
        print(f"{finding.mark:<8}{finding.name:<10}{finding.text}", flush=True)
        yield finding


def versions() -> str:
    """Python and the packages below."""
    texts = [text for text in importlib.metadata.requires("secateur") or () if "extra" not in text]
    needed = [re.split(r"[^\w.-]", text)[0] for text in texts]
    found = {name: importlib.metadata.version(name) for name in needed}
    return ", ".join(
        [f"secateur {secateur.__version__}", f"Python {platform.python_version()}", *(f"{n} {found[n]}" for n in SHOWN)]
    )


def disk(home: Path) -> str:
    """Space in home and for scratch files."""
    free = {}
    for folder in (home, Path(tempfile.gettempdir())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not os.access(there, os.W_OK):
            raise InputError(f"home must be a folder that can be written, got {str(folder)!r}")
        free[str(folder)] = shutil.disk_usage(there).free / 1e9
    for path, size in free.items():
        if size < FREE_GB:
            raise InputError(f"disk must have {FREE_GB} GB free, got {size:.1f} in {path}")
    return ", ".join(f"{size:.0f} GB free in {path}" for path, size in free.items())


def gpu() -> str:
    """GPUs that PyTorch can use."""
    import torch

    if not torch.cuda.is_available():
        raise SkipError("none here; a run on this machine uses the CPU")
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def mlflow(home: Path) -> str:
    """Whether MLflow answers."""
    where = places(home)
    check_server(where.tracking_uri)
    return without_credentials(where.tracking_uri)


def registry(home: Path) -> str:
    """Whether the registry can be read."""
    location = absolute(places(home).registry)
    if not is_url(location) and not Path(location).exists():
        return f"{location}, made by the first run"
    return without_credentials(location) + ("" if has_commit(location) else ", empty: the first run begins it")


def state(home: Path) -> str:
    """Whether the place for checkpoints and embeddings takes, gives and removes a file."""
    if not os.environ.get(STATE_VARIABLE):
        raise SkipError(f"{STATE_VARIABLE} is not set: on a cluster, a killed step starts anew")
    durable, name, content = DurableState(home), f"doctor-{uuid.uuid4().hex}", b"secateur doctor"
    durable.write(name, content)
    if durable.read(name) != content:
        raise InputError(f"{STATE_VARIABLE} must give back what it takes, got something else")
    durable.remove(name)
    return without_credentials(durable.uri)


def kubeflow(host: str, namespace: str) -> str:
    """Whether Kubeflow Pipelines answers, and lets us see what we will work with."""
    from secateur.pipelines import client

    if not host and not os.environ.get(client.HOST) and not os.environ.get(client.IN_POD):
        raise SkipError(f"no --host, and {client.HOST} is not set")
    found = client.connect(host, namespace)
    options = {"namespace": found.get_user_namespace() or None, "page_size": 1}
    with client.told(found.host):
        for call in (found.list_pipelines, found.list_experiments, found.list_runs, found.list_recurring_runs):
            call(**options)
    return f"{without_credentials(found.host)}, with the right to see pipelines, experiments, runs and schedules"
