"""The command line."""

import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

import secateur
from secateur.components.settings import sentences
from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError
from secateur.files import read_json
from secateur.pipelines import checks, registries, scheduling, submitting, summary, sweeping, versions
from secateur.pipelines.cleaning import clean
from secateur.pipelines.containers import find_image
from secateur.pipelines.doctor import doctor
from secateur.pipelines.inspecting import inspect
from secateur.pipelines.local import PIPELINE, Home, StepError, run_pipeline
from secateur.pipelines.options import build, names, with_config_options
from secateur.pipelines.progress import progress
from secateur.pipelines.state import RunState, expected_steps
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Method
from secateur.pruning.methods import all_methods, check_method
from secateur.records.places import Places, check_server, places
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.state import STATE_VARIABLE
from secateur.training.config import TrainConfig

WHERE = "Where"

app = typer.Typer(
    help="Prune a labelled image data set while you train on it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command()(inspect)
app.command()(clean)
app.command()(submitting.compile)
app.command()(submitting.submit)
app.command()(doctor)
app.add_typer(scheduling.app, name="schedule")
app.add_typer(versions.versions, name="versions")
app.add_typer(registries.registry, name="registry")


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
    image: Annotated[
        str,
        typer.Option(help="container image to run each step in, by the engine at DOCKER_HOST", rich_help_panel=WHERE),
    ] = "",
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", rich_help_panel=WHERE)] = False,
    **settings: Any,
) -> None:
    """Run the whole pipeline on this machine: prune, compare, publish."""
    arguments = pipeline_arguments(settings, names(baselines))
    folder = Home(home.absolute())
    checks.check_home(folder.folder)
    where = result_places(folder.folder, tracking_uri, registry)
    image = find_image(image) if image else ""
    console, state, started = Console(), RunState(expected_steps(arguments)), time.monotonic()
    name = run_name(arguments)
    outputs = execute(console, state, folder, arguments, where, name, cache=cache, image=image, debug=debug)
    summary.show_results(console, read_json(outputs["results"]))
    summary.show_costs(console, state, time.monotonic() - started)
    summary.show_places(console, outputs, where)


def execute(
    console: Console,
    state: RunState,
    home: Home,
    arguments: dict[str, Any],
    where: Places,
    name: str,
    *,
    pipeline: str = PIPELINE,
    cache: bool,
    image: str = "",
    debug: bool,
) -> dict[str, Any]:
    """Run a pipeline while somebody watches; where a step fails, say so and end.

    Args:
        console: Where to show it.
        state: Its steps.
        home: Where it keeps everything.
        arguments: Of the pipeline.
        where: Where results go.
        name: Of the run in MLflow.
        pipeline: "module:name".
        cache: Reuse the outputs of earlier runs.
        image: Container image that the steps run in; empty for processes.
        debug: Show the step's traceback.
    """
    environment = step_environment(home, where)
    try:
        with progress(console, state) as watch:
            return run_pipeline(
                home, arguments, environment, watch, where=where, name=name, pipeline=pipeline, cache=cache, image=image
            )
    except StepError as error:
        if debug:
            print(error.traceback, file=sys.stderr)
        step = next(iter(state.labels("failed")), error.event.task)
        say(f"{step}: {error}\nThe whole log is in {error.log}")
        raise typer.Exit(1) from error


@app.command()
@partial(with_config_options, without=("method", "keep", *sentences(PublishConfig)))
def sweep(
    methods: Annotated[
        str, typer.Option("--methods", help="methods to compare, with commas", rich_help_panel="Pruning")
    ] = "multimodal,infobatch,random",
    keeps: Annotated[
        str, typer.Option(help="kept fractions to try each method at, with commas", rich_help_panel="Pruning")
    ] = "0.3,0.5,0.7",
    references: Annotated[
        bool,
        typer.Option(
            "--references/--no-references",
            help="also full and random at each ratio, and ordinary training",
            rich_help_panel="Pruning",
        ),
    ] = True,
    home: Annotated[
        Path, typer.Option(help="folder that keeps runs, cache, state and results", rich_help_panel=WHERE)
    ] = Path(".secateur"),
    tracking_uri: Annotated[
        str, typer.Option(help="MLflow server, instead of a SQLite file in home", rich_help_panel=WHERE)
    ] = "",
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="reuse steps of earlier runs", rich_help_panel=WHERE)
    ] = True,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", rich_help_panel=WHERE)] = False,
    **settings: Any,
) -> None:
    """Compare methods and ratios on this machine, over one ingest, one embedding and one warm-up."""
    arms = sweeping.make_arms(names(methods), sweeping.ratios(keeps), references)
    arguments = sweeping.sweep_arguments(settings, arms)
    folder = Home(home.absolute())
    checks.check_home(folder.folder)
    where = result_places(folder.folder, tracking_uri, "")
    console, state, started = Console(), RunState(sweeping.expected_steps(arms)), time.monotonic()
    outputs = execute(
        console, state, folder, arguments, where, "sweep", pipeline=sweeping.PIPELINE, cache=cache, debug=debug
    )
    sweeping.show_arms(console, read_json(outputs["results"]))
    summary.show_costs(console, state, time.monotonic() - started)
    sweeping.show_places(console, outputs, where)
    summary.show_unsent(console, outputs)


@app.command()
def sync(
    home: Annotated[Path, typer.Option(help="folder of the runs")] = Path(".secateur"),
) -> None:
    """Send to MLflow what could not be sent while it was away."""
    spools = places(home).spool, Home(home.absolute()).spool  # the pods' and the local runs'; mostly the same
    if not any(spool.is_dir() for spool in spools) and "://" not in os.environ.get(STATE_VARIABLE, ""):
        print("nothing is left to send")
        return
    from secateur.records.tracking import sending  # only now: MLflow takes seconds to import

    sent, problems = sending.sync(*spools)
    print(f"{sent} message{'' if sent == 1 else 's'} sent" if sent or problems else "nothing is left to send")
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(1)


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


def run_name(arguments: Mapping[str, Any]) -> str:
    """What MLflow calls a run."""
    return f"{arguments['method']}-{arguments['keep']:g}"


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
