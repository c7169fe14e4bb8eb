"""The commands that bring the pipeline to a cluster: `secateur compile` and `secateur submit`."""

import dataclasses
import hashlib
import importlib
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import secateur
from secateur.dataset.digits import NAME as DIGITS
from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError, require_choice
from secateur.pipelines import checks
from secateur.pipelines.options import build, names, with_config_options
from secateur.pipelines.resources import Cluster, read_cluster
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import check_method
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

if TYPE_CHECKING:
    from kfp.client import Client

PIPELINES = {
    "prune": "secateur.pipelines.prune:prune_pipeline",
    "sweep": "secateur.pipelines.sweep:sweep_pipeline",
}
PINNED = re.compile(r".*@[0-9a-f]{40}")
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
INTERNAL = re.compile(r"root|executor|iteration-.*|.*-driver")  # tasks that are Kubeflow's own
INTERVAL, OUTAGE = 15.0, 300.0  # seconds between looks at a run, and without an answer

CLUSTER, WHERE = "Cluster", "Where"
Preset = Annotated[str, typer.Option(help="resources of the steps: cpu, cifar or imagenet", rich_help_panel=CLUSTER)]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="YAML: resources by step, Secrets, claims, ...", rich_help_panel=CLUSTER),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="one setting, as prune.gpus=2, all.hours=48 or claim=data", rich_help_panel=CLUSTER),
]
Baselines = Annotated[str, typer.Option(help="methods to compare with, with commas", rich_help_panel="Pruning")]
Host = Annotated[str, typer.Option(help="URL of Kubeflow Pipelines", rich_help_panel=WHERE)]
Namespace = Annotated[str, typer.Option(help="Kubeflow profile, where there are several", rich_help_panel=WHERE)]
Experiment = Annotated[str, typer.Option(help="Kubeflow experiment, made if need be", rich_help_panel=WHERE)]
ServiceAccount = Annotated[str, typer.Option(help="of the pods; empty: Kubeflow's own", rich_help_panel=CLUSTER)]
Root = Annotated[
    str, typer.Option(help="URL under which Kubeflow keeps the outputs; empty: its own", rich_help_panel=WHERE)
]


def compile(
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write, YAML")] = Path("secateur-prune.yaml"),
    pipeline: Annotated[str, typer.Option(help="which pipeline")] = "prune",
    source: Annotated[str, typer.Option(help="that of the runs; one that never changes lets `ingest` be cached")] = "",
    image: Annotated[str, typer.Option(help="of the steps; else SECATEUR_IMAGE", rich_help_panel=CLUSTER)] = "",
    preset: Preset = "",
    cluster: ClusterFile = None,
    overrides: Overrides = None,
) -> None:
    """Compile a pipeline to a file for a Kubeflow cluster."""
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"output must end in .yaml, got {str(output)!r}")
    require_choice("pipeline", pipeline, tuple(PIPELINES))
    settings = [*(overrides or ()), *([f"image={image}"] if image else [])]
    write_pipeline(output, pipeline, read_cluster(cluster, settings, preset), pinned=is_pinned(source))
    print(output)


@with_config_options
def submit(
    baselines: Baselines = "full,random",
    host: Host = "",
    namespace: Namespace = "",
    experiment: Experiment = "secateur",
    pipeline_root: Root = "",
    service_account: ServiceAccount = "",
    preset: Preset = "",
    cluster: ClusterFile = None,
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the end of the run", rich_help_panel=WHERE)] = False,
    **settings: Any,
) -> None:
    """Run the pipeline on Kubeflow; paths are those that the steps see."""
    arguments = cluster_arguments(settings, names(baselines))
    placed = read_cluster(cluster, overrides or (), preset)
    from secateur.pipelines import client as kubeflow

    client = kubeflow.connect(host, namespace)
    with kubeflow.told(client.host):
        pipeline, version = have_version(client, placed, arguments)
        name = f"{settings['method']}-{settings['keep']:g}"
        where = {"experiment": experiment, "service_account": service_account, "pipeline_root": pipeline_root}
        run_id = start(client, name, pipeline, version, arguments, **where)
        print(f"run {run_id}: {client.run_url(run_id)}")
        if wait:
            report(follow(client, run_id))


def cluster_arguments(settings: dict[str, Any], baselines: list[str]) -> dict[str, Any]:
    """Check settings as far as that can be done from here, and give those that are not defaults.

    Raises:
        InputError: One of them cannot be used.
    """
    source = settings["source"]
    if "://" not in source and ":" not in source and source != DIGITS and not Path(source).is_absolute():
        raise InputError(f"source must be 'digits', a URL or an absolute path that the steps see, got {source!r}")
    if Path(source).is_absolute():  # what lies there, only the step can tell
        ingest = build(IngestConfig, settings | {"source": DIGITS})
    else:
        ingest = build(IngestConfig, settings)
    train, prune = build(TrainConfig, settings), build(PruneConfig, settings)
    check_method(prune.method)
    checks.check_baselines(baselines)
    train.check_epochs(prune.epochs)
    arguments: dict[str, Any] = {}
    for config in (ingest, build(ClipConfig, settings), train, prune, build(PublishConfig, settings)):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if value != field.default:
                arguments[field.name] = list(value) if isinstance(value, tuple) else value
    arguments |= {"source": source} if source != DIGITS else {}
    return arguments | ({"baselines": baselines} if baselines != ["full", "random"] else {})


def is_pinned(source: str) -> bool:
    """Whether what a source names can never be something else.

    >>> is_pinned("digits"), is_pinned("dvc:https://host/repository#pictures@main"), is_pinned("/data/pictures")
    (True, False, False)
    """
    return source == DIGITS or PINNED.fullmatch(source) is not None


def write_pipeline(output: Path, pipeline: str, cluster: Cluster, *, pinned: bool) -> None:
    """Compile a pipeline for a cluster."""
    from secateur.pipelines.cluster import compile_pipeline, for_cluster

    module, name = PIPELINES[pipeline].split(":")
    output.parent.mkdir(parents=True, exist_ok=True)
    compile_pipeline(for_cluster(getattr(importlib.import_module(module), name), cluster, pinned=pinned), str(output))


def have_version(client: "Client", cluster: Cluster, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """Have this very pipeline on the server; ids of the pipeline and its version, which is named after its bytes."""
    from secateur.pipelines.client import upload

    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        file = Path(folder) / "pipeline.yaml"
        write_pipeline(file, "prune", cluster, pinned=is_pinned(arguments.get("source", DIGITS)))
        version = f"{secateur.__version__}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
        pipeline, found, new = upload(client, "secateur-prune", version, file)
    print(f"pipeline secateur-prune, version {version}: {'uploaded' if new else 'there already, used as it is'}")
    return pipeline, found


def start(
    client: "Client",
    name: str,
    pipeline: str,
    version: str,
    arguments: Mapping[str, Any],
    *,
    experiment: str,
    service_account: str,
    pipeline_root: str = "",
) -> str:
    """Start a run; its id."""
    from secateur.pipelines.client import experiment_id, listed, made_once, named

    group = experiment_id(client, experiment)
    title = f"{name} {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} {uuid.uuid4().hex[:6]}"

    def make() -> str:
        run = client.run_pipeline(
            group,
            title,
            params=dict(arguments),
            pipeline_id=pipeline,
            version_id=version,
            pipeline_root=pipeline_root or None,
            service_account=service_account or None,
        )
        return str(run.run_id)

    def find() -> str | None:
        found = listed(client.list_runs, "runs", experiment_id=group, filter=named("display_name", title))
        return found[0].run_id if found else None

    return made_once(make, find)


def follow(client: "Client", run_id: str, *, say: Callable[[str], None] = print, interval: float = INTERVAL) -> Any:
    """Wait for the end of a run, and say what its tasks do; a server that is away for a while does not matter."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    shown: dict[str, str] = {}
    answered = time.monotonic()
    while True:
        try:
            run = client.get_run(run_id)
        except (ApiException, HTTPError) as error:
            if getattr(error, "status", 500) < 500 or time.monotonic() - answered > OUTAGE:
                raise
        else:
            answered = time.monotonic()
            for line in changes(run, shown):
                say(line)
            if run.state in ENDED:
                return run
        time.sleep(interval)


def changes(run: Any, shown: dict[str, str]) -> list[str]:
    """What the tasks of a run do now and did not when this was last asked.

    Args:
        run: As the server has it.
        shown: State by task, brought up to date here.
    """
    lines = []
    for task in tasks_of(run):
        state = task.state or "PENDING"
        if shown.get(task.task_id) != state:
            shown[task.task_id] = state
            lines.append(f"{time.strftime('%H:%M:%S')} {task.display_name}: {state.lower()}")
    return lines


def report(run: Any) -> None:
    """Say how a run ended, with its figures where MLflow can be asked.

    Raises:
        ClusterError: Not well.
    """
    from secateur.pipelines.client import ClusterError, said
    from secateur.records.tracking.finishing import final_figures

    for name, value in final_figures(run.run_id).items():
        print(f"{name}: {value}")
    if run.state == "SUCCEEDED":
        print(f"run {run.run_id} succeeded")
        return
    failed = [task.display_name for task in tasks_of(run) if task.state == "FAILED"]
    reason = said(run.error.message) if run.error and run.error.message else ", ".join(failed) or "see Kubeflow"
    raise ClusterError(f"run {run.run_id} ended as {run.state}: {reason}")


def tasks_of(run: Any) -> list[Any]:
    """The tasks of a run that people know."""
    details = (run.run_details and run.run_details.task_details) or ()
    return [task for task in details if task.display_name and not INTERNAL.fullmatch(task.display_name)]
