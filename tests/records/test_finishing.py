"""The end of a run on a cluster, with a real MLflow store and a server that takes alerts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from secateur.records.places import places
from secateur.records.tracking import finishing, runs, spool
from secateur.records.tracking.finishing import final_figures, finish
from tests.alerts import Alerts


@pytest.fixture
def store(workplace: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The store of a run that a step has told something."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    run = runs.open_run(places(), "multimodal-0.7")
    run.client.log_metric(run.run_id, "test_accuracy", 0.9)
    run.client.log_metric(run.run_id, "noise/recall", 0.5)
    runs.open_arm(run, "full-0.7", "full")
    return run.client


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing.time, "sleep", lambda _: None)


def run_of(client: MlflowClient) -> runs.TrackedRun:
    return runs.open_run(places(), "")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "RUNNING"])
def test_a_failure_is_told(store: MlflowClient, alerts: Alerts, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setenv("SECATEUR_ALERT_URL", alerts.url)
    runs.set_tags(run_of(store), {"failure": "prune: keep must be in (0, 1], got 1.4"})
    assert finish(state, "", "summary.md") == "failed"
    found = store.search_runs([store.get_experiment_by_name("secateur").experiment_id])
    assert [run.info.status for run in found] == ["FAILED", "FAILED"]
    text = Path("summary.md").read_text()
    assert "prune: keep must be in (0, 1], got 1.4" in text
    assert "| test_accuracy | 0.9 |" in text
    folder = Path(store.download_artifacts(run_of(store).run_id, "failure.md"))
    assert folder.read_text() == text
    assert alerts.taken == [{"text": "secateur: run run-1 failed: prune: keep must be in (0, 1], got 1.4"}]


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "RUNNING"])
def test_a_success_is_left_alone(
    store: MlflowClient, alerts: Alerts, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """KFP may not know yet how the steps ended; the run in MLflow does."""
    monkeypatch.setenv("SECATEUR_ALERT_URL", alerts.url)
    runs.set_tags(run_of(store), {"failure": "prune: a node was lost"})  # and it was tried again
    runs.end_run(run_of(store), "FINISHED")
    assert finish(state, "", "summary.md") == "succeeded"
    assert "failure" not in run_of(store).tags
    assert store.get_run(run_of(store).run_id).info.status == "FINISHED"
    assert (Path("summary.md").read_text(), alerts.asked) == ("The run succeeded.\n", 0)


@pytest.mark.parametrize(
    ("state", "tags", "ends"),
    [
        ("RUNNING", {}, "succeeded"),
        ("RUNNING", {"failure": "prune: no"}, "failed"),
        ("RUNNING", {"failure": "prune: no", "registry_version": "digits/full-1/v1"}, "succeeded"),
        ("FAILED", {}, "failed"),
    ],
)
def test_a_run_that_somebody_else_began_goes_on(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, state: str, tags: dict[str, str], ends: str
) -> None:
    """It runs until its owner ends it, which says nothing about the steps."""
    theirs = store.create_run(store.create_experiment("theirs", Path("theirs").absolute().as_uri())).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    runs.set_tags(run_of(store), tags)
    arm = runs.open_arm(run_of(store), "full-0.7", "full").run_id
    assert finish(state, "", "summary.md") == ends
    assert store.get_run(theirs).info.status == "RUNNING"
    assert store.get_run(arm).info.status == ("FAILED" if ends == "failed" else "RUNNING")


def test_a_run_that_failed_before_anything_was_told(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    assert finish("FAILED", "no node", "summary.md") == "failed"
    found = store.get_run(run_of(store).run_id)
    assert (found.info.status, found.data.tags["failure"]) == ("FAILED", "no node")


def test_a_server_that_is_away_holds_no_alert_back(
    workplace: Path, alerts: Alerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("SECATEUR_ALERT_URL", alerts.url)
    alerts.refusals = 2
    assert finish("FAILED", "", "summary.md") == "failed"
    assert (alerts.asked, len(alerts.taken)) == (3, 1)


def test_an_alert_that_nobody_takes_is_no_error_and_shows_no_address(
    workplace: Path, alerts: Alerts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SECATEUR_ALERT_URL", alerts.url)
    alerts.refusals = 9
    assert finish("FAILED", "", "summary.md") == "failed"
    assert alerts.asked == 3
    assert "the alert was not taken: " in caplog.text
    assert "s3cret" not in caplog.text


def test_without_mlflow_an_open_end_is_a_success(workplace: Path) -> None:
    assert finish("RUNNING", "", "summary.md") == "succeeded"


def test_figures_of_a_run(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.set_tags(run_of(store), {"registry_version": "digits/full-1/v1"})
    assert final_figures("run-1") == {"test_accuracy": "0.9", "registry_version": "digits/full-1/v1"}
    assert final_figures("run-2") == {}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert final_figures("run-1") == {}


def test_a_step_that_fails_says_so(workplace: Path) -> None:
    script = (
        "from secateur import logs; from secateur.errors import InputError\n"
        "from secateur.records.tracking.live import follow\n"
        "logs.configure('prune', 'full'); follow('prune', 'full')\n"
        "raise InputError('keep must be in (0, 1], got 1.4')"
    )
    places = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "SECATEUR_RUN": "run-1", "SECATEUR_SPOOL": str(workplace)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | places)
    assert "secateur [prune full] failed: keep must be in (0, 1], got 1.4" in done.stdout
    (file,) = spool.message_files(workplace / "run-1")
    (message,), _ = spool.read_messages(file, 0)
    assert message.tags == {"failure": "prune full: keep must be in (0, 1], got 1.4"}
