"""All that `publish` has to tell MLflow about a pipeline run, as a folder that can be sent now or later.

bundle.json    parameters, tags, figures, curves, arms, the data set, the model's name, and the gate's rules
artifacts/     mask, report, results
export/        the model, see `secateur.records.tracking.exporting`; a sweep has none

Whoever reads it needs nothing else of the pipeline run.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.files import read_json, write_json
from secateur.records.config import PublishConfig
from secateur.records.git import without_credentials
from secateur.records.tracking.facts import Point
from secateur.records.tracking.gate import Card, Decision, decide

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from secateur.records.tracking.runs import TrackedRun

log = logging.getLogger(__name__)

BUNDLE_FILE = "bundle.json"
ARTIFACTS = "artifacts"
MASK = "mask"  # a folder among them
EXPORT = "export"
GATE_FILE = "gate.json"
COMPLETED = "secateur.completed_by"  # tag of a run whose mask and model another run's publisher logged


@dataclass(frozen=True)
class ArmFacts:
    """What MLflow is told about one arm, in a run below the pipeline run's."""

    arm: str  # see `secateur.records.tracking.facts.arm_key`
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
    completes: str = ""  # another MLflow run, which the version names, see `complete`


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
    """Log everything about a run, its tags last, and end it if it is ours; sent again, it changes nothing.

    Returns:
        What became of the model; None where there is none.
    """
    from secateur.records.tracking import models, runs

    bundle, decision = read_bundle(folder), None
    runs.log_params(run, bundle.params)
    runs.log_dataset(run, bundle.dataset)
    for facts in bundle.arms:
        arm = runs.open_arm(run, facts.arm, facts.arm.rpartition("-")[0])
        runs.log_params(arm, facts.params)
        runs.log_metrics(arm, facts.points, facts.figures)
        runs.end_run(arm, "FINISHED")
    run.client.log_artifacts(run.run_id, str(folder / ARTIFACTS))
    model_id, tags = None, dict(bundle.tags)
    if bundle.model_name:
        model = models.log_model(run, folder / EXPORT, bundle.model_name, bundle.params)
        model_id = str(model.model_id)
        decision = promote(run, bundle)
        tags |= {"promoted": json.dumps(decision.promoted), "promotion": decision.sentence}
    runs.log_metrics(run, bundle.points, bundle.figures, model_id)
    runs.set_tags(run, tags)
    runs.end_run(run, "FINISHED")
    if bundle.completes:
        complete(run, bundle, folder)
    return decision


def complete(run: "TrackedRun", bundle: Bundle, folder: Path) -> None:
    """Log mask and model to the run that the version names, if its publisher died after the push, before it logged any.

    They are the same to the last bit; what else that run would have been told is not known here. Where MLflow does not
    take them, the next publisher of the mask tries again.
    """
    from mlflow.exceptions import MlflowException

    from secateur.records.tracking import models, runs

    try:
        named = runs.find_run(run.client, bundle.completes)
        if named is None or "registry_version" in named.tags:
            return
        run.client.log_artifacts(named.run_id, str(folder / ARTIFACTS / MASK), MASK)
        models.ready_model(named, folder / EXPORT, bundle.params)
        tags = {tag: bundle.tags[tag] for tag in ("mask_digest", "data_digest", "registry", "registry_version")}
        runs.set_tags(named, tags | {COMPLETED: run.run_id})
    except (MlflowException, OSError) as error:
        log.warning("MLflow's run %s stays without a model: %s", bundle.completes, without_credentials(str(error)))


def promote(run: "TrackedRun", bundle: Bundle) -> Decision:
    """Make the candidate the champion if it passes; where another one became champion meanwhile, decide again."""
    from secateur.records.tracking import models, runs

    with runs.one_at_a_time(run.client.tracking_uri):
        first = champion = models.holder(run.client, bundle.model_name, models.CHAMPION)
        if champion is not None and champion.run_id == run.run_id:
            return Decision(True, ("it is the champion already",))
        while True:
            rival = champion is not None and (first is None or champion.version != first.version)
            decision = judge(run, bundle, champion, rival)
            models.settle_candidate(run, bundle.model_name, decision)
            if not decision.promoted:
                return decision
            champion = models.crown(run, bundle.model_name, champion)
            if champion is not None and champion.run_id == run.run_id:
                return decision


def judge(run: "TrackedRun", bundle: Bundle, champion: "ModelVersion | None", rival: bool) -> Decision:
    """Decide about the candidate, and keep the decision with what it rests on."""
    from secateur.records.tracking import runs

    said = runs.read_artifact(run.client, champion.run_id, GATE_FILE) if champion is not None else None
    card = Card(**said["candidate"]) if said else None
    comparable = champion is None or card is not None
    decision = decide(PublishConfig(**bundle.rules), Card(**bundle.card), card, comparable=comparable, rival=rival)
    entry = {
        "candidate": bundle.card,
        "champion": {"version": champion.version, "run_id": champion.run_id, **(said or {})} if champion else None,
        "rules": {name: value for name, value in bundle.rules.items() if name.startswith("promote")},
        **asdict(decision),
    }
    if entry["champion"]:
        entry["champion"].pop("champion", None)  # not the whole line of succession
    run.client.log_dict(run.run_id, entry, GATE_FILE)
    return decision
