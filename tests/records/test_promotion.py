"""Candidates that want to become champion at the same moment, in a real MLflow store."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from mlflow import MlflowClient

from secateur.records.config import PublishConfig
from secateur.records.places import places
from secateur.records.tracking import models, runs
from secateur.records.tracking.bundles import GATE_FILE, Bundle, promote
from secateur.records.tracking.gate import Card
from secateur.records.tracking.runs import TrackedRun, open_run

NAME = "pets"
Candidate = tuple[TrackedRun, Bundle]


@pytest.fixture
def candidate(store: str) -> Callable[[float], Candidate]:
    """Makes a run with a registered model of some test accuracy."""
    MlflowClient(store, store).create_registered_model(NAME)

    def make(accuracy: float) -> Candidate:
        run = open_run(places(), str(accuracy))
        run.client.create_model_version(NAME, "file:///nowhere", run.run_id)
        card = asdict(Card("t" * 64, accuracy, {}, 1000, None))
        return run, Bundle({}, {}, (), {}, {}, (), NAME, asdict(PublishConfig()), card)

    return make


@pytest.fixture
def _served(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a server, where nobody has a lock."""
    monkeypatch.setattr(runs, "sqlite_file", lambda _: None)
    monkeypatch.setattr(models, "sqlite_file", lambda _: None)
    monkeypatch.setattr(models, "SETTLE", 0.0)


def aliases(client: MlflowClient) -> dict[str, str]:
    """Accuracy of the models that have an alias."""
    found = client.get_registered_model(NAME).aliases
    runs = {alias: client.get_model_version(NAME, version).run_id for alias, version in found.items()}
    return {alias: str(client.get_run(run_id).info.run_name) for alias, run_id in runs.items()}


def once(call: Callable[..., Any], also: Callable[[], None], *, first: bool = False) -> Callable[..., Any]:
    """A call after which, or before which, something else happens once."""
    left = [also]

    def run(*arguments: Any) -> Any:
        if first and left:
            left.pop()()
        result = call(*arguments)
        if left and not first:
            left.pop()()
        return result

    return run


@pytest.mark.usefixtures("_served")
@pytest.mark.parametrize("between", ["reading and writing", "writing and reading again"])
@pytest.mark.parametrize(
    ("rival", "ends"),
    [(0.8, {"champion": "0.85"}), (0.85, {"candidate": "0.85", "champion": "0.85"}), (0.9, None)],
)
def test_who_became_champion_meanwhile_is_not_passed_over(
    candidate: Callable[[float], Candidate],
    monkeypatch: pytest.MonkeyPatch,
    between: str,
    rival: float,
    ends: dict[str, str] | None,
) -> None:
    other, theirs = candidate(rival)
    run, ours = candidate(0.85)

    def elsewhere() -> None:
        other.client.log_dict(other.run_id, {"candidate": theirs.card}, GATE_FILE)
        other.client.set_registered_model_alias(NAME, "champion", "1")

    if between == "reading and writing":
        monkeypatch.setattr(models, "settle_candidate", once(models.settle_candidate, elsewhere))
    else:
        real = run.client.set_registered_model_alias
        monkeypatch.setattr(run.client, "set_registered_model_alias", once(real, elsewhere))
    decision = promote(run, ours)
    assert decision.promoted == (rival < 0.85)
    assert aliases(run.client) == (ends or {"candidate": "0.85", "champion": "0.9"})
    if rival == 0.85:
        assert run.client.get_model_version_by_alias(NAME, "champion").run_id == other.run_id
    said = runs.read_artifact(run.client, run.run_id, GATE_FILE)
    assert said is not None
    assert (said["promoted"], said["champion"]["run_id"]) == (decision.promoted, other.run_id)
    assert run.client.get_model_version(NAME, "2").tags["promotion"] == decision.sentence


def test_with_one_file_for_all_the_best_of_many_is_champion(
    candidate: Callable[[float], Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, everybody = [candidate(accuracy) for accuracy in (0.95, 0.9, 0.85)], Barrier(3)
    holder = models.holder

    def slow(client: MlflowClient, name: str, alias: str) -> Any:
        found = holder(client, name, alias)
        if alias == "champion":
            try:
                everybody.wait(0.5)  # all have looked before any goes on, unless something keeps them apart
            except BrokenBarrierError:
                return found
            time.sleep(0.2 * [run.client for run, _ in made].index(client))
        return found

    monkeypatch.setattr(models, "holder", slow)
    with ThreadPoolExecutor(3) as pool:
        decisions = list(pool.map(lambda entry: promote(*entry), made))
    assert aliases(made[0][0].client)["champion"] == "0.95"
    assert decisions[0].promoted


def test_the_candidate_is_the_newest_that_was_not_promoted(candidate: Callable[[float], Candidate]) -> None:
    first, worse, worst = candidate(0.9), candidate(0.8), candidate(0.7)
    client = first[0].client
    promote(*first)
    assert aliases(client) == {"champion": "0.9"}
    promote(*worst)
    promote(*worse)  # registered before, decided after
    assert aliases(client) == {"candidate": "0.7", "champion": "0.9"}
    promote(*candidate(0.95))
    assert aliases(client) == {"candidate": "0.7", "champion": "0.95"}
    lenient = Bundle(**{**vars(worst[1]), "rules": asdict(PublishConfig(promote_loss=0.5))})
    promote(worst[0], lenient)
    assert aliases(client) == {"champion": "0.7"}
    said = client.get_model_version(NAME, "3").tags["promotion"]
    assert said.startswith("became champion: test accuracy is 70.0%")
