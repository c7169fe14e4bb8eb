import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import create_server, socket

import pytest

from secateur.errors import InputError
from secateur.records import places as module
from secateur.records.places import check_server, places


@pytest.fixture
def listening() -> Iterator[socket]:
    """A port that takes connections and never answers."""
    with create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    """A server that answers with the status that its path ends with, /health after it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[-2]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_everything_lies_in_one_folder_unless_the_environment_says_more(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = places()
    base = workplace / ".secateur"
    assert (where.tracking_uri, where.registry) == (f"sqlite:///{base}/mlflow.db", str(base / "registry.git"))
    assert (where.experiment, where.run_id, where.store) == ("secateur", None, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "pets")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("SECATEUR_REGISTRY", "/r.git")
    monkeypatch.setenv("SECATEUR_STORE", "/s")
    monkeypatch.setenv("KFP_RUN_ID", "a/run of Kubeflow's")
    named = module.Places("http://localhost:5000", "pets", "abc", "/r.git", "/s", "a-run-of-Kubeflow-s", base / "spool")
    assert places() == named
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    monkeypatch.setenv("SECATEUR_STATE_URI", "/state")
    assert (places().key, places().spool) == ("run-1", Path("/state/spool"))
    monkeypatch.setenv("SECATEUR_STATE_URI", "s3://bucket/state")
    assert places().spool.is_relative_to(tempfile.gettempdir())
    monkeypatch.setenv("SECATEUR_SPOOL", "/spool")
    assert places().spool == Path("/spool")


def test_a_server_that_is_away_is_said_without_its_password() -> None:
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError) as caught:
        check_server(f"http://ada:secret@127.0.0.1:{port}")
    assert str(caught.value).startswith(f"tracking_uri must be a server that answers, got http://127.0.0.1:{port}: ")
    assert "refused" in str(caught.value)


def test_a_server_that_is_silent_is_not_waited_for(listening: socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    started = time.monotonic()
    with pytest.raises(InputError, match="timed out"):
        check_server(f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert time.monotonic() - started < 2


def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "ask", lambda _: time.sleep(1.5))
    with pytest.raises(InputError, match="no answer in 0 s"):
        check_server("http://name.invalid")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_answers_is_enough(answering: HTTPServer, status: int) -> None:
    check_server(f"http://127.0.0.1:{answering.server_port}/{status}/")


def test_a_server_in_trouble_is_said(answering: HTTPServer) -> None:
    with pytest.raises(InputError, match="HTTP status 503"):
        check_server(f"http://127.0.0.1:{answering.server_port}/503")


@pytest.mark.parametrize("uri", ["http://", "http://[::1", "https://127.0.0.1:notaport"])
def test_an_odd_uri_is_said(uri: str) -> None:
    with pytest.raises(InputError, match="tracking_uri must be a server that answers"):
        check_server(uri)


def test_a_file_is_checked_and_its_folder_made(workplace: Path) -> None:
    check_server(f"sqlite:///{workplace}/new/mlflow.db")
    assert (workplace / "new").is_dir()
    (workplace / "file").touch()
    with pytest.raises(InputError, match="tracking_uri must be in a folder that can be written"):
        check_server(f"sqlite:///{workplace}/file/mlflow.db")
    with pytest.raises(InputError, match="tracking_uri must be a file that can be written"):
        check_server(f"sqlite:///{workplace}/new")
    (workplace / "notes.txt").write_text("this is no data base")
    with pytest.raises(InputError, match="tracking_uri must be a SQLite file, got something else"):
        check_server(f"sqlite:///{workplace}/notes.txt")


def test_asking_costs_no_heavy_import() -> None:
    code = "import sys, secateur.records.places; assert not {'mlflow', 'dvc', 'numpy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
