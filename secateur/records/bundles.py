"""All that `publish` has to tell MLflow about a pipeline run, as a folder that can be sent now or later.

bundle.json    parameters, tags, figures, curves, arms, the data set, the model's name, and the gate's rules
artifacts/     mask, report, results
export/        the model, see `secateur.records.exporting`; a sweep has none

Whoever reads it needs nothing else of the pipeline run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.files import read_json, write_json
from secateur.records.config import PublishConfig
from secateur.records.facts import Point
from secateur.records.gate import Card, Decision, decide

if TYPE_CHECKING:
    from secateur.records.tracking import TrackedRun

BUNDLE_FILE = "bundle.json"
ARTIFACTS = "artifacts"
EXPORT = "export"
GATE_FILE = "gate.json"


@dataclass(frozen=True)
class ArmFacts:
    """What MLflow is told about one arm, in a run below the pipeline run's."""

    arm: str  # see `secateur.records.facts.arm_key`
    params: Mapping[str, str]
    points: tuple[Point, ...]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Bundle:
    """What `bundle.json` says."""

    dataset: Mapping[str, Any]  # dataset.json
    params: Mapping[str, str]
    points: tuple[Point, ...]
    figures: Mapping[str, float]
    tags: Mapping[str, str]
    arms: tuple[ArmFacts, ...]
    model_name: str = ""  # in the model registry; empty: there is no model
    rules: Mapping[str, Any] = field(default_factory=dict)  # a `PublishConfig`
    card: Mapping[str, Any] = field(default_factory=dict)  # a `Card`


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write `bundle.json`."""
    write_json(folder / BUNDLE_FILE, asdict(bundle))


def read_bundle(folder: Path) -> Bundle:
    """Read `bundle.json`."""
    entry = read_json(folder / BUNDLE_FILE)
    arms = [ArmFacts(**arm | {"points": as_points(arm["points"])}) for arm in entry["arms"]]
    return Bundle(**entry | {"arms": tuple(arms), "points": as_points(entry["points"])})


def as_points(entries: list[dict[str, Any]]) -> tuple[Point, ...]:
    """Points out of JSON."""
    return tuple(Point(**entry) for entry in entries)


def send_bundle(run: "TrackedRun", folder: Path) -> Decision | None:
    """Log everything about a run, its tags last, and end it; sent again, it changes nothing.

    Returns:
        What became of the model; None where there is none.
    """
    from secateur.records import models, tracking

    bundle, decision = read_bundle(folder), None
    tracking.log_params(run, bundle.params)
    tracking.log_dataset(run, bundle.dataset)
    for facts in bundle.arms:
        arm = tracking.open_arm(run, facts.arm, facts.arm.rpartition("-")[0])
        tracking.log_params(arm, facts.params)
        tracking.log_metrics(arm, facts.points, facts.figures)
        tracking.end_run(arm, "FINISHED")
    run.client.log_artifacts(run.run_id, str(folder / ARTIFACTS))
    model_id, tags = None, dict(bundle.tags)
    if bundle.model_name:
        model = models.log_model(run, folder / EXPORT, bundle.model_name, bundle.params)
        model_id = str(model.model_id)
        decision = promote(run, bundle)
        tags |= {"promoted": json.dumps(decision.promoted), "promotion": decision.sentence}
    tracking.log_metrics(run, bundle.points, bundle.figures, model_id)
    tracking.set_tags(run, tags)
    tracking.end_run(run, "FINISHED")
    return decision


def promote(run: "TrackedRun", bundle: Bundle) -> Decision:
    """Make the candidate the champion if it passes, and keep the decision with what it rests on."""
    from secateur.records import models, tracking

    rules, candidate = PublishConfig(**bundle.rules), Card(**bundle.card)
    holder = models.champion(run.client, bundle.model_name)
    if holder is not None and holder.run_id == run.run_id:
        return Decision(True, ("it is the champion already",))
    said = tracking.read_artifact(run.client, holder.run_id, GATE_FILE) if holder is not None else None
    card = Card(**said["candidate"]) if said else None
    decision = decide(rules, candidate, card, comparable=holder is None or card is not None)
    entry = {
        "candidate": asdict(candidate),
        "champion": {"version": holder.version, "run_id": holder.run_id, **(said or {})} if holder else None,
        "rules": {name: value for name, value in bundle.rules.items() if name.startswith("promote")},
        **asdict(decision),
    }
    if entry["champion"]:
        entry["champion"].pop("champion", None)  # not the whole line of succession
    run.client.log_dict(run.run_id, entry, GATE_FILE)
    models.settle_candidate(run, bundle.model_name, decision)
    return decision
