"""What `secateur sweep` asks for, and how it shows what came of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError
from secateur.pipelines import checks
from secateur.pipelines.options import build, names
from secateur.pipelines.state import Step
from secateur.pipelines.summary import accuracy
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import check_method
from secateur.records.git import without_credentials
from secateur.records.places import Places
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

PIPELINE = "secateur.pipelines.sweep:sweep_pipeline"
REFERENCES = ("full", "random")


def ratios(text: str) -> list[float]:
    """Read a list of kept fractions.

    Raises:
        InputError: Something in it is none.
    """
    try:
        return [float(part) for part in names(text)]
    except ValueError:
        raise InputError(f"keeps must be numbers with commas between them, got {text!r}") from None


def make_arms(methods: Sequence[str], keeps: Sequence[float], references: bool) -> list[dict[str, Any]]:
    """Every method at every ratio; and what to beat: `full` and `random` at each, and ordinary training.

    Raises:
        InputError: No method or ratio, or one twice.
    """
    for name, values in (("methods", methods), ("keeps", keeps)):
        if not values or len(set(values)) != len(values):
            raise InputError(f"{name} must be one or more different ones, got {','.join(map(str, values)) or 'none'}")
    everyone = [*methods, *(r for r in REFERENCES if references and r not in methods)]
    arms = [{"method": method, "keep": keep} for method in everyone for keep in keeps]
    if references and 1.0 not in keeps:
        arms.append({"method": "full", "keep": 1.0})
    return arms


def sweep_arguments(settings: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Check all settings, and give them as arguments of the pipeline.

    Raises:
        InputError: One of them cannot be used.
    """
    source = checks.absolute_source(build(IngestConfig, dict(settings)))
    clip = checks.absolute_files(build(ClipConfig, dict(settings)))
    train = build(TrainConfig, dict(settings))
    for arm in arms:
        prune = build(PruneConfig, {**settings, **arm})
        check_method(prune.method)
        train.check_epochs(prune.epochs)
    shared = {name: value for name, value in dataclasses.asdict(prune).items() if name not in ("method", "keep")}
    arguments = {"snapshot": checks.snapshot(source.source, clip), "arms": [dict(arm) for arm in arms]}
    for config in (source, clip, train):
        arguments |= dataclasses.asdict(config)
    return arguments | shared | {"seeds": list(train.seeds)}


def expected_steps(arms: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps that `sweep_pipeline` will take."""
    parts = [f"{arm['method']} {arm['keep']:g}" for arm in arms]
    steps = [Step(name, label=name) for name in ("ingest", "embed", "warmup")]
    steps += [Step("prune", part, part) for part in parts]
    return [*steps, Step("compare", label="compare"), Step("record", label="record")]


def show_arms(console: Console, results: Mapping[str, Any]) -> None:
    """Print one row for each arm, the highest accuracy of each ratio first.

    Args:
        console: Where.
        results: What `results.json` says.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method")
    for heading in ("keep", "accuracy", "samples trained on", "wrong labels dropped"):
        table.add_column(heading, justify="right", no_wrap=True)
    entries = sorted(results["arms"], key=lambda entry: (-entry["keep"], -entry["accuracy_mean"]))
    for entry in entries:
        recall = entry["recall"]
        table.add_row(
            entry["name"],
            f"{entry['keep']:g}",
            accuracy(entry),
            f"{entry['backward_samples']:,}",
            "" if recall is None else f"{100 * recall:.0f} %",
            style="dim" if entry["name"] in REFERENCES else None,
        )
    console.print(table)


def show_places(console: Console, outputs: Mapping[str, Any], where: Places) -> None:
    """Print where everything is."""
    places = {
        "report": outputs["report"],
        "MLflow": f"run {outputs['run_id']} in {without_credentials(where.tracking_uri)}, its arms below it",
        "log": outputs["log"],
    }
    for name, place in places.items():
        console.print(f"{name:<8} {place}", markup=False, highlight=False, soft_wrap=True)
