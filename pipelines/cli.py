"""The command line."""

import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

import secateur
from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError
from secateur.files import read_json
from secateur.pipelines import checks, summary
from secateur.pipelines.local import Home, StepError, run_pipeline
from secateur.pipelines.options import build, names, with_config_options
from secateur.pipelines.progress import progress
from secateur.pipelines.state import RunState, expected_steps
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Method
from secateur.pruning.methods import all_methods, check_method
from secateur.records.places import Places, check_server, places
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

WHERE = "Where"

app = typer.Typer(
    help="Prune a labelled image data set while you train on it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@with_config_options
def run(
    baselines: Annotated[
        str, typer.Option(help="methods to compare with at the same budget, with commas", rich_help_panel="Pruning")
    ] = "full,random",
    home: Annotated[
        Path, typer.Option(help="folder that keeps runs, cache, state and results", rich_help_panel=WHERE)
    ] = Path(".secateur"),
    tracking_uri: Annotated[
        str, typer.Option(help="MLflow server, instead of a SQLite file in home", rich_help_panel=WHERE)
    ] = "",
    registry: Annotated[
        str, typer.Option(help="git repository of the DVC registry, instead of one in home", rich_help_panel=WHERE)
    ] = "",
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="reuse steps of earlier runs", rich_help_panel=WHERE)
    ] = True,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", rich_help_panel=WHERE)] = False,
    **settings: Any,
) -> None:
    """Run the whole pipeline on this machine: prune, compare, publish."""
    arguments = pipeline_arguments(settings, names(baselines))
    folder = Home(home.absolute())
    checks.check_home(folder.folder)
    where = result_places(folder.folder, tracking_uri, registry)
    console, state, started = Console(), RunState(expected_steps(arguments)), time.monotonic()
    try:
        with progress(console, state) as watch:
            outputs = run_pipeline(folder, arguments, step_environment(folder, where), watch, cache=cache)
    except StepError as error:
        if debug:
            print(error.traceback, file=sys.stderr)
        step = next(iter(state.labels("failed")), error.event.task)
        say(f"{step}: {error}\nThe whole log is in {error.log}")
        raise typer.Exit(1) from error
    summary.show_results(console, read_json(outputs["results"]))
    summary.show_costs(console, state, time.monotonic() - started)
    summary.show_places(console, outputs, where)


def pipeline_arguments(settings: dict[str, Any], baselines: list[str]) -> dict[str, Any]:
    """Check all settings, and give them as arguments of the pipeline.

    Raises:
        InputError: One of them cannot be used.
    """
    source = checks.absolute_source(build(IngestConfig, settings))
    clip = checks.absolute_files(build(ClipConfig, settings))
    train, prune = build(TrainConfig, settings), build(PruneConfig, settings)
    publish = build(PublishConfig, settings)
    check_method(prune.method)
    checks.check_baselines(baselines)
    train.check_epochs(prune.epochs)
    arguments = {"snapshot": checks.snapshot(source.source, clip), "baselines": baselines}
    for config in (source, clip, train, prune, publish):
        arguments |= dataclasses.asdict(config)
    return arguments | {"seeds": list(train.seeds)}


def result_places(home: Path, tracking_uri: str, registry: str) -> Places:
    """Where results go: as told, else as the environment says, else in home.

    Raises:
        InputError: The tracking server is away.
    """
    where = places(home)
    where = dataclasses.replace(
        where,
        tracking_uri=tracking_uri or where.tracking_uri,
        registry=registry or where.registry,
    )
    check_server(where.tracking_uri)
    return where


def step_environment(home: Home, where: Places) -> dict[str, str]:
    """What the steps find in their environment: it may differ from run to run, so the cache must not ask for it."""
    return {
        "SECATEUR_STATE_URI": os.environ.get("SECATEUR_STATE_URI") or str(home.folder / "state"),
        "SECATEUR_REGISTRY": where.registry,
        "MLFLOW_TRACKING_URI": where.tracking_uri,
        "MLFLOW_EXPERIMENT_NAME": where.experiment,
    }


@app.command()
def compile(
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write, YAML")] = Path("secateur-prune.yaml"),
) -> None:
    """Compile the pipeline to a file for a Kubeflow cluster; SECATEUR_IMAGE names the container image."""
    from kfp.compiler import Compiler

    from secateur.pipelines.prune import prune_pipeline

    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"output must end in .yaml, got {str(output)!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(prune_pipeline, str(output))
    print(output)


@app.command()
def data(
    accept: Annotated[bool, typer.Option("--accept", help="write data.dvc anew, for a change that is meant")] = False,
) -> None:
    """Build the default data set in data/, and check it against data.dvc; run it at the root of the repository."""
    from secateur.records.data_version import track_default

    track_default(Path.cwd(), accept=accept)
    print("data/ is what data.dvc says")


@app.command()
def methods() -> None:
    """List the pruning methods, those of other installed packages included."""
    found, errors = all_methods()
    table = Table(box=box.SIMPLE_HEAD, leading=1)
    table.add_column("method", no_wrap=True)
    table.add_column("what it does")
    for name, method in found.items():
        lines = [method.summary, f"from: {method.paper}"]
        if method.needs:
            lines.append(f"needs: {', '.join(method.needs)}")
        if method.cost != Method.cost:
            lines.append(f"cost: {method.cost}")
        table.add_row(name, "\n".join(lines))
    Console(markup=False).print(table)
    for error in errors:
        say(error)
    if errors:
        raise typer.Exit(2)


@app.command()
def version() -> None:
    """Print the version."""
    print(secateur.__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and end the process with its exit code: 2 for wrong input, 1 for a step that failed."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    debug = "--debug" in arguments
    try:
        code = app(arguments or ["--help"], standalone_mode=False) or 0
        if code == 130:
            say("interrupted")
    except InputError as error:
        if debug:
            traceback.print_exception(error)
        say(str(error))
        code = 2
    except typer.TyperException as error:
        say(error.format_message())
        code = error.exit_code
    sys.exit(code)


def say(error: str) -> None:
    """Tell what went wrong."""
    print(f"error: {error}", file=sys.stderr)
