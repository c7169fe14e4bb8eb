import logging
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from unittest.mock import Mock

import pytest
from mlflow import MlflowClient
from mlflow.telemetry.utils import is_telemetry_disabled

from secateur.errors import InputError
from secateur.records.places import places
from secateur.records.tracking import runs
from secateur.records.tracking.facts import Point
from secateur.records.tracking.runs import end_run, locked, log_metrics, open_arm, open_client, open_run


def test_one_at_a_time_makes_a_store(workplace: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        with locked(workplace / "new" / "lock"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: enter(), range(4)))
    assert most == 1


def test_chatter_and_telemetry_of_mlflow_are_off() -> None:
    assert logging.getLogger("mlflow").getEffectiveLevel() == logging.WARNING
    assert is_telemetry_disabled()


def test_a_store_of_another_version_is_said(store: str, workplace: Path) -> None:
    with sqlite3.connect(workplace / ".secateur" / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'of the future'")
    database.close()
    with pytest.raises(InputError, match="tracking_uri must be a store that MLflow can use"):
        open_client(store)


def test_a_store_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"

    def killed(tracking_uri: str, registry_uri: str) -> None:
        assert tracking_uri == registry_uri
        sqlite3.connect(tracking_uri.removeprefix("sqlite:///")).execute(
            "CREATE TABLE experiments (id)"
        ).connection.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "MlflowClient", killed)
        with pytest.raises(KeyboardInterrupt):
            open_client(f"sqlite:///{file}")
    assert [path.name for path in tmp_path.iterdir()] == [".mlflow.db.lock"]
    assert open_client(f"sqlite:///{file}").search_experiments()


def test_a_run_goes_to_the_named_experiment(store: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "pets")
    runs = [open_run(places(), "one"), open_run(places(), "two")]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
    assert {run.experiment_id for run in runs} == {experiment.experiment_id}
    assert experiment.artifact_location == (workplace / ".secateur" / "mlartifacts").as_uri()
    assert [run.created for run in runs] == [True, True]
    monkeypatch.setenv("MLFLOW_RUN_ID", runs[0].run_id)
    again = open_run(places(), "three")
    assert (again.run_id, again.created) == (runs[0].run_id, False)
    client.delete_experiment(experiment.experiment_id)
    monkeypatch.delenv("MLFLOW_RUN_ID")
    with pytest.raises(InputError, match="experiment must be an active one, got 'pets'"):
        open_run(places(), "four")


def test_many_points_are_logged_in_few_calls_and_never_twice(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(places(), "many")
    points = [Point(f"loss/seed-{s}", e / 7, e, e * 0.5) for s in range(5) for e in range(1, 501)]
    calls = Mock(wraps=run.client.log_batch)
    monkeypatch.setattr(run.client, "log_batch", calls)
    for _ in range(2):
        log_metrics(run, points, {"test_accuracy": 0.5})
    assert calls.call_count == 3  # and none the second time
    assert len(run.client.get_metric_history(run.run_id, "loss/seed-4")) == 500
    (final,) = run.client.get_metric_history(run.run_id, "test_accuracy")
    assert (final.step, final.timestamp) == (500, run.start_time + 250_000)


def test_whoever_opens_a_pipeline_runs_run_finds_the_same_one(
    store: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda i: open_run(places(), f"step {i}"), range(4)))
        arms = list(pool.map(lambda run: open_arm(run, "random-0.5-abc", "random-0.5"), runs))
    assert len({run.run_id for run in runs}) == len({arm.run_id for arm in arms}) == 1
    assert not any(run.created for run in runs)  # its end is the pipeline's to tell
    assert len(MlflowClient(store).search_runs([runs[0].experiment_id])) == 2


def test_without_a_lock_those_who_made_too_many_agree_on_one(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    monkeypatch.setattr(runs, "sqlite_file", lambda _: None)  # as of a server, which takes no lock
    experiment = runs.find_experiment(MlflowClient(store), "secateur", store)
    barrier = Barrier(3, timeout=30)

    def make(_: int) -> str:
        client = MlflowClient(store, store)
        search = client.search_runs
        searches = iter([lambda *a: (barrier.wait(), search(*a))[1]])  # all look before any makes
        monkeypatch.setattr(client, "search_runs", lambda *a: next(searches, search)(*a))
        return runs.the_run(client, experiment, {"secateur.run": "run-1"}, "a run").info.run_id

    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(make, range(3)))
    assert len(found) == 1
    assert [r.info.run_id for r in MlflowClient(store).search_runs([experiment])] == list(found)


def test_a_run_is_ours_if_we_began_it_or_its_tag_is_our_key(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(store)
    theirs = client.create_run("0").info.run_id
    alone = open_run(places(), "alone")
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    keyed = open_run(places(), "keyed")
    assert (alone.ours, keyed.ours) == (True, True)
    later = replace(places(), run_id=alone.run_id, key=alone.run_id)  # as whoever sends what was kept for it has it
    assert open_run(later, "").ours
    for run_id, ours in ((theirs, False), (alone.run_id, False), (keyed.run_id, True)):
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        run = open_run(places(), "")
        arm = open_arm(run, "random-0", "random")
        assert (run.ours, run.created) == (ours, False)
        end_run(run, "FAILED")
        assert client.get_run(run_id).info.status == ("FAILED" if ours else "RUNNING")
        assert client.get_run(arm.run_id).info.status == "FAILED"


def test_the_end_of_a_run_is_that_of_its_arms_too(store: str) -> None:
    run = open_run(places(), "a run")
    arms = [open_arm(run, f"random-{i}", "random") for i in range(2)]
    end_run(arms[0], "FINISHED")
    end_run(run, "FAILED")
    client = MlflowClient(store)
    status = [client.get_run(each.run_id).info.status for each in (run, *arms)]
    assert status == ["FAILED", "FINISHED", "FAILED"]
