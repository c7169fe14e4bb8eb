"""The end of a run: the result table, and where everything is."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from secateur.pipelines.state import RunState
from secateur.records.git import without_credentials
from secateur.records.places import Places


def show_results(console: Console, results: Mapping[str, Any]) -> None:
    """Print the table of arms, and what became of the wrong labels.

    Args:
        console: Where.
        results: What `results.json` says.
    """
    console.print(results_table(results["arms"]))
    for line in (noise_line(results["noise"]), *(f"warning: {alarm}" for alarm in results["alarms"])):
        if line:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def results_table(arms: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each arm, the pruned one first."""
    seeds = len(arms[0]["seeds"])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("arm")
    for heading in ("kept", f"accuracy ({seeds} seed{'s' if seeds > 1 else ''})", "samples trained on", "training"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in arms:
        table.add_row(
            arm["name"],
            f"{100 * arm['keep_achieved']:.1f} %",
            accuracy(arm),
            f"{arm['backward_samples']:,}",
            f"{arm['seconds']:.1f} s",
            style="bold" if arm["role"] == "pruned" else None,
        )
    return table


def accuracy(arm: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the seeds, in percent.

    >>> accuracy({"accuracy_mean": 0.9634, "accuracy_sd": 0.0041})
    '96.3 ± 0.4 %'
    """
    spread = f" ± {100 * arm['accuracy_sd']:.1f}" if arm["accuracy_sd"] is not None else ""
    return f"{100 * arm['accuracy_mean']:.1f}{spread} %"


def noise_line(noise: Mapping[str, Any] | None) -> str:
    """What the mask did to the wrong labels; empty where the true ones are not known."""
    if noise is None:
        return ""
    figures = ", ".join(
        f"{name} {100 * noise[name]:.0f} %" for name in ("recall", "precision") if noise[name] is not None
    )
    return (
        f"Of {noise['wrong']} wrong labels the mask found {noise['found_wrong']} inconsistent"
        + (f" ({figures})" if figures else "")
        + f", and dropped {noise['dropped_wrong_all']}."
    )


def show_costs(console: Console, state: RunState, seconds: float) -> None:
    """Print how long the run took, and what it did not have to do again."""
    reused = state.labels("reused")
    if reused:
        console.print(f"Reused from earlier runs: {', '.join(reused)}.", highlight=False, soft_wrap=True)
    console.print(
        f"The run took {seconds:.0f} s; {state.start_up:.0f} s ({state.start_up / seconds:.0%}) of them went into the "
        "start of the steps' processes and their imports.",
        highlight=False,
        soft_wrap=True,
    )


def show_places(console: Console, outputs: Mapping[str, Any], where: Places) -> None:
    """Print where everything is.

    Args:
        console: Where.
        outputs: What `run_pipeline` gave.
        where: Where results went.
    """
    mlflow = f"{without_credentials(where.tracking_uri)}, run {outputs['run_id']}"
    if where.tracking_uri.startswith("sqlite:"):
        mlflow = f"run {outputs['run_id']}; see it with: mlflow ui --backend-store-uri {where.tracking_uri}"
    places = {
        "report": outputs["report"],
        "mask": f"{outputs['mask']} (digest {outputs['mask_digest'][:12]})",
        "model": outputs["model"],
        "version": f"{outputs['version']} in {without_credentials(where.registry)}",
        "champion": outputs["promotion"],
        "MLflow": mlflow,
        "log": outputs["log"],
    }
    for name, place in places.items():
        console.print(f"{name:<8} {place}", markup=False, highlight=False, soft_wrap=True)
    show_unsent(console, outputs)


def show_unsent(console: Console, outputs: Mapping[str, Any]) -> None:
    """Say so if MLflow could not be told everything."""
    if outputs["unsent"]:
        console.print("warning: MLflow is away; send what is left with: secateur sync", highlight=False, soft_wrap=True)
