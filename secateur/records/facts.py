"""What MLflow is told about a run: plain arithmetic on what the steps wrote."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def curve_points(histories: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Point]:
    """Every figure of every epoch, one curve for each seed: `validation_accuracy/seed-0` and so on.

    Args:
        histories: What `history.json` says, by seed.
    """
    return [
        Point(f"{name}/seed-{seed}", float(value), step, float(entry["seconds"]))
        for seed, history in histories.items()
        for step, entry in enumerate(history, start=1)
        for name, value in entry.items()
        if name not in NOTED and isinstance(value, int | float)
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
        figures[f"test_accuracy{suffix}"] = arm["accuracy_mean"]
        figures[f"test_accuracy_sd{suffix}"] = arm.get("accuracy_sd")
        for name in ("keep_achieved", "forward_samples", "backward_samples", "seconds"):
            figures[f"{name}{suffix}"] = arm.get(name)
    for seed, accuracy in zip(arms[0].get("seeds", ()), arms[0].get("accuracy", ()), strict=True):
        figures[f"test_accuracy_by_seed/seed-{seed}"] = accuracy
    figures |= {f"noise/{name}": value for name, value in (results.get("noise") or {}).items()}
    figures |= {f"mask/{reason}": count for reason, count in results.get("reasons", {}).items()}
    return {name: float(value) for name, value in figures.items() if value is not None}


def suffixes(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the figures of arms apart: nothing for the first, its method for another, and its keep if need be."""
    times = Counter(arm["name"] for arm in arms[1:])
    named = [f"_{a['name']}" if times[a["name"]] == 1 else f"_{a['name']}-{a['keep']:g}" for a in arms[1:]]
    return ["", *named]
