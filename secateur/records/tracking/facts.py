"""What MLflow is told about a run: plain arithmetic on what the steps wrote."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.state import content_key

DIGEST_LENGTH = 32  # MLflow takes at most 36 characters
PARAM_LENGTH = 6000
NOTED = ("phase", "epoch", "seconds")  # of an epoch: what is no curve


@dataclass(frozen=True)
class Point:
    """One value of one curve."""

    name: str
    value: float
    step: int  # epochs trained, from 1
    seconds: float  # since training began


def flat_params(run: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a run out of its `run.json`: one flat set, as columns to compare runs by.

    >>> flat_params({"method": "random", "keep": 0.5, "prune_config": {"rate": 0.1}, "seeds": [0, 1]})
    {'method': 'random', 'keep': '0.5', 'seeds': '0, 1', 'rate': '0.1'}
    """
    named = {name: run[name] for name in ("method", "keep", "seeds") if name in run}
    named |= {f"data_{k}": v for k, v in run.get("dataset", {}).items()}
    named |= run.get("architecture", {})
    for config in ("train_config", "prune_config"):
        named |= {k: v for k, v in run.get(config, {}).items() if k not in named}
    for group in ("semantics", "versions"):
        named |= {f"{group}.{k}": v for k, v in (run.get(group) or {}).items()}
    return {name: as_text(value)[:PARAM_LENGTH] for name, value in named.items()}


def as_text(value: Any) -> str:
    """A value as MLflow shows it."""
    if isinstance(value, list | tuple):
        return ", ".join(as_text(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def arm_key(config: Mapping[str, Any]) -> str:
    """What an arm is known by within a pipeline run: method and ratio, and a hash of all settings.

    Args:
        config: Of the pruning, as plain values.
    """
    return f"{config['method']}-{config['keep']:g}-{content_key(**config)[:8]}"


def arm_params(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of an arm, as columns to compare by."""
    return {name: as_text(value)[:PARAM_LENGTH] for name, value in config.items()}


def curve_points(histories: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Point]:
    """Every figure of every epoch, one curve for each seed: `validation_accuracy/seed-0` and so on.

    Args:
        histories: What `history.json` says, by seed.
    """
    return [point for seed, history in histories.items() for point in epoch_points(seed, history)]


def warmup_points(histories: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Point]:
    """The same of the warm-up alone, which all arms share, as the step itself told it."""
    return [
        point
        for seed, history in histories.items()
        for point in epoch_points(seed, [e for e in history if e["phase"] == "warm-up"], prefix="warmup/")
    ]


def epoch_points(seed: int, history: Sequence[Mapping[str, Any]], told: int = 0, prefix: str = "") -> list[Point]:
    """Every figure of the epochs of one seed.

    Args:
        seed: Which.
        history: All its epochs.
        told: How many of them to leave out.
        prefix: Put before the names.
    """
    return [
        Point(f"{prefix}{name}/seed-{seed}", float(value), step, float(entry["seconds"]))
        for step, entry in enumerate(history[told:], start=told + 1)
        for name, value in entry.items()
        if name not in NOTED and isinstance(value, int | float)
    ]


def step_points(step: str, figures: Mapping[str, Any], number: int = 0) -> list[Point]:
    """The numbers among a step's figures, as `step/name`.

    >>> step_points("embed", {"pictures": 7, "model": "ViT-B-32"})
    [Point(name='embed/pictures', value=7.0, step=0, seconds=0.0)]
    """
    return [
        Point(f"{step}/{name}", float(value), number, 0.0)
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]


def final_figures(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures of `results.json` by name: those of the pruned arm plain, of each other arm with its name at the end.

    >>> pruned, full = {"name": "multimodal", "accuracy_mean": 0.9}, {"name": "full", "accuracy_mean": 0.8}
    >>> final_figures({"arms": [pruned, full]})
    {'test_accuracy': 0.9, 'test_accuracy_full': 0.8}
    """
    arms = results["arms"]
    figures: dict[str, Any] = {}
    for arm, suffix in zip(arms, suffixes(arms), strict=True):
        figures |= {f"{name}{suffix}": value for name, value in arm_figures(arm).items()}
    for seed, accuracy in zip(arms[0].get("seeds", ()), arms[0].get("accuracy", ()), strict=True):
        figures[f"test_accuracy_by_seed/seed-{seed}"] = accuracy
    figures |= {f"noise/{name}": value for name, value in (results.get("noise") or {}).items()}
    figures |= {f"mask/{reason}": count for reason, count in results.get("reasons", {}).items()}
    return {name: float(value) for name, value in figures.items() if value is not None}


def arm_figures(arm: Mapping[str, Any]) -> dict[str, float]:
    """The final figures of one arm, out of its entry in `results.json`.

    >>> arm_figures({"accuracy_mean": 0.9, "accuracy_sd": None, "seconds": 2})
    {'test_accuracy': 0.9, 'seconds': 2.0}
    """
    named = {"test_accuracy": arm["accuracy_mean"], "test_accuracy_sd": arm.get("accuracy_sd")}
    named |= {name: arm.get(name) for name in ("keep_achieved", "forward_samples", "backward_samples", "seconds")}
    return {name: float(value) for name, value in named.items() if value is not None}


def suffixes(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the figures of arms apart: nothing for the first, its method for another, and its keep if need be."""
    times = Counter(arm["name"] for arm in arms[1:])
    named = [f"_{a['name']}" if times[a["name"]] == 1 else f"_{a['name']}-{a['keep']:g}" for a in arms[1:]]
    return ["", *named]
