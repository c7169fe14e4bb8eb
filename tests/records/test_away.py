"""A real MLflow server that goes away while a run goes on, and comes back."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from secateur.records.places import Places, ask
from secateur.records.tracking import sending, spool
from secateur.records.tracking.facts import Point
from secateur.records.tracking.live import tracked_run, unsent
from secateur.records.tracking.spool import Message, SpoolFile


class Server:
    """`mlflow server` on a SQLite file, which can be stopped and started again."""

    def __init__(self, database: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.database, self.uri = database, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--backend-store-uri", f"sqlite:///{self.database}", "--port", str(self.port), "--workers", "1"]
        options += ["--artifacts-destination", str(self.database.parent / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # three processes less
            start_new_session=True,
        )
        wait_for(lambda: not ask(self.uri))

    def stop(self) -> None:
        if self.process:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    made = Server(Path(shutil.copyfile(empty_store, folder / "mlflow.db")))
    yield made
    made.stop()


def epoch(number: int) -> Message:
    return Message("random-0.5-abc", points=[Point("loss/seed-0", 1 / number, number, float(number))])


def told(client: MlflowClient, key: str) -> tuple[str, list[tuple[int, float]]]:
    """Status of the pipeline run, and the curve of its one arm."""
    (experiment,) = [e.experiment_id for e in client.search_experiments(filter_string="name = 'away'")]
    (parent,) = client.search_runs([experiment], f"tags.`secateur.run` = '{key}'")
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    curve = [
        (p.step, p.value) for child in children for p in client.get_metric_history(child.info.run_id, "loss/seed-0")
    ]
    assert len(children) <= 1
    return parent.info.status, curve


def test_no_figure_is_lost_when_the_server_is_away_for_a_while_or_to_the_end(
    server: Server, tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Places(server.uri, "away", None, "", None, key="run-1", spool=tmp_path / "spool")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.start()
    client = MlflowClient(server.uri, server.uri)
    folder = tmp_path / "spool" / "run-1"
    with tracked_run(where, "a run", tmp_path / "messages.txt"):
        file = SpoolFile(folder / "prune.jsonl")
        file.write(epoch(1))
        wait_for(lambda: spool.sent_bytes(folder))
        server.stop()
        for number in (2, 3, 4):
            file.write(epoch(number))
        server.start()
        file.write(epoch(5))
        wait_for(lambda: not spool.waiting(folder))
    assert told(client, "run-1") == ("FINISHED", [(n, 1 / n) for n in range(1, 6)])
    assert unsent(where) == 0
    assert not folder.exists()

    where = Places(server.uri, "away", None, "", None, key="run-2", spool=tmp_path / "spool")
    folder = tmp_path / "spool" / "run-2"
    file = SpoolFile(folder / "prune.jsonl")

    def fail() -> None:
        with tracked_run(where, "a run", tmp_path / "messages.txt"):
            file.write(epoch(1))
            wait_for(lambda: spool.sent_bytes(folder))
            server.stop()
            file.write(epoch(2))
            raise ValueError("a step failed")

    with pytest.raises(ValueError, match="a step failed"):
        fail()
    assert unsent(where) == 1
    sent, problems = sending.sync(tmp_path / "spool")
    assert (sent, len(problems)) == (0, 1)
    assert problems[0].startswith(f"1 of run run-2 cannot be sent to {server.uri}: ")
    server.start()
    assert sending.sync(tmp_path / "spool") == (1, [])
    assert told(client, "run-2") == ("FAILED", [(1, 1.0), (2, 0.5)])
    assert sending.sync(tmp_path / "spool") == (0, [])
