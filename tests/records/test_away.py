"""A real MLflow server that cannot be reached for a while as a run goes on, and then can again."""

import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from secateur.records.places import Places, ask
from secateur.records.tracking import sending, spool
from secateur.records.tracking.facts import Point
from secateur.records.tracking.live import tracked_run, unsent
from secateur.records.tracking.spool import Message, SpoolFile


class Visit(socketserver.BaseRequestHandler):
    """Hands on what is said, both ways."""

    server: "Door"

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.inner)) as inside:
            self.server.visitors += [self.request, inside]
            back = threading.Thread(target=self.hand_on, args=(inside, self.request), daemon=True)
            back.start()
            self.hand_on(self.request, inside)
            back.join()

    @staticmethod
    def hand_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while said := source.recv(2**16):
                target.sendall(said)
            target.shutdown(socket.SHUT_WR)


class Door(socketserver.ThreadingTCPServer):
    """Who comes to this port is led to another."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int, inner: int) -> None:
        super().__init__(("127.0.0.1", port), Visit)
        self.inner, self.visitors = inner, list[socket.socket]()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def shut(self) -> None:
        """Refuse whoever comes, and throw out who is there."""
        self.shutdown()
        self.server_close()
        for visitor in self.visitors:
            with suppress(OSError):
                visitor.shutdown(socket.SHUT_RDWR)


class Server:
    """`mlflow server` on a SQLite file; it is there while its door is open."""

    def __init__(self, database: Path) -> None:
        self.inner, port = free_port(), free_port()
        self.port, self.uri = port, f"http://127.0.0.1:{port}"
        options = ["--backend-store-uri", f"sqlite:///{database}", "--port", str(self.inner), "--workers", "1"]
        options += ["--artifacts-destination", str(database.parent / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # three processes less
            start_new_session=True,
        )
        wait_for(lambda: not ask(f"http://127.0.0.1:{self.inner}"))

    def come(self) -> None:
        self.door = Door(self.port, self.inner)

    def go(self) -> None:
        self.door.shut()

    def end(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


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
    made.end()


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
    server.come()
    client = MlflowClient(server.uri, server.uri)
    folder = tmp_path / "spool" / "run-1"
    with tracked_run(where, "a run", tmp_path / "messages.txt"):
        file = SpoolFile(folder / "prune.jsonl")
        file.write(epoch(1))
        wait_for(lambda: spool.sent_bytes(folder))
        server.go()
        for number in (2, 3, 4):
            file.write(epoch(number))
        wait_for(lambda: "cannot send to MLflow yet" in (tmp_path / "messages.txt").read_text())
        server.come()
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
            server.go()
            file.write(epoch(2))
            raise ValueError("a step failed")

    with pytest.raises(ValueError, match="a step failed"):
        fail()
    assert unsent(where) == 1
    sent, problems = sending.sync(tmp_path / "spool")
    assert (sent, len(problems)) == (0, 1)
    assert problems[0].startswith(f"1 of run run-2 cannot be sent to {server.uri}: ")
    server.come()
    assert sending.sync(tmp_path / "spool") == (1, [])
    assert told(client, "run-2") == ("FAILED", [(1, 1.0), (2, 0.5)])
    assert sending.sync(tmp_path / "spool") == (0, [])
