"""Steps in containers: real KFP and Docker's own client, with an engine whose containers are processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_engine import IMAGE, Engine, docker_engine

from secateur.errors import InputError
from secateur.pipelines import containers
from secateur.pipelines.containers import LABEL, container_options, docker_runner, find_image
from secateur.pipelines.events import Event
from secateur.pipelines.local import Home, StepError, run_pipeline

HERE = Path(__file__).parent
TOY = "toy_pipeline:toy_pipeline"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with docker_engine() as server:
        monkeypatch.setenv("DOCKER_HOST", server.host)
        yield server


def run_toy(folder: Path, mode: str) -> tuple[dict[str, Any], list[Event]]:
    events: list[Event] = []
    environment = {"PYTHONPATH": str(HERE), "TOY": "from outside"}
    outputs = run_pipeline(Home(folder), {"mode": mode}, environment, events.append, pipeline=TOY, image=IMAGE)
    return outputs, events


def test_every_step_runs_in_a_container_of_its_own(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_FOR_STEPS", "a secret of somebody else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    outputs, events = run_toy(tmp_path, "plain")
    assert outputs["Output"] == "plain from outside"
    assert sorted(e.task for e in events if e.kind == "done") == ["start", "work", "work", "work-2"]
    assert len(engine.bodies) == 4
    for body in engine.bodies.values():
        settings = dict(setting.split("=", 1) for setting in body["Env"])
        assert settings["SECATEUR_IMAGE"] == f"{body['Image']}:latest" == IMAGE
        assert "NOT_FOR_STEPS" not in settings
        assert (settings["AWS_SECRET_ACCESS_KEY"], settings["USER"]) == ("hunter2", "secateur")
        assert body["User"] == f"{os.getuid()}:{os.getgid()}"
        mounts = {m["Target"]: (m["Source"], m["ReadOnly"]) for m in body["HostConfig"]["Mounts"]}
        assert mounts == {str(folder): (str(folder), False) for folder in (tmp_path, HERE)}
        assert Path(settings["HOME"]).is_relative_to(tmp_path)

    _, events = run_toy(tmp_path, "plain")
    assert [e.kind for e in events] == ["reused"] * 4
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_a_step_that_fails_says_why(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StepError) as failed:
        run_toy(tmp_path, "refuse")
    assert (failed.value.event.task, str(failed.value)) == ("work-2", "keep must be in (0, 1], got 1.4")


def test_nothing_runs_on_when_the_command_is_killed(engine: Engine, tmp_path: Path) -> None:
    script = f"import test_containers as t; t.run_toy(t.Path({str(tmp_path)!r}), 'hang')"
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as command:
        while not (pids := list(tmp_path.glob("runs/*/start/pid"))):
            assert command.poll() is None
            time.sleep(0.05)
        command.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while running := [p for p in engine.processes.values() if p.poll() is None]:
        assert time.monotonic() < deadline, f"{len(running)} containers left, {pids}"
        time.sleep(0.05)


def test_what_a_run_names_is_there_at_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, source, registry, store = (tmp_path / name for name in ("home", "pictures", "registry.git", "mlflow"))
    for folder in (source, registry, store, home / "state"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "not this one")
    settings = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
        "SECATEUR_REGISTRY": str(registry),
        "SECATEUR_STATE_URI": str(home / "state"),
        "PATH": "/usr/bin",
    }
    options = container_options(home, "run", {"source": str(source), "keep": 0.5, "prompts": "a photo"}, settings)
    assert options["mounts"] == {str(home): False, str(registry): False, str(store): False, str(source): True}
    assert options["labels"] == {LABEL: "run"}
    assert {"AWS_PROFILE", *settings} - set(options["environment"]) == {"PATH"}
    assert json.loads(json.dumps(options)) == options


def test_the_engines_own_name_of_an_image(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (find_image(IMAGE), find_image("more:1")) == (IMAGE, "localhost/more:1")
    with pytest.raises(InputError, match=r"^image must be one that the engine has \(.*\), got 'toy:2'$"):
        find_image("toy:2")


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("tcp://127.0.0.1:9", "Connection refused"),
        ("nowhere", "Invalid bind address format: port is required: nowhere"),
    ],
)
def test_an_engine_that_is_away(
    host: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setattr(containers, "run_once", lambda *_: pytest.fail("it is to be told before anything is run"))
    monkeypatch.setattr(sys, "argv", ["containers", IMAGE])
    with pytest.raises(SystemExit) as end:
        containers.main()
    sentence = f"error: DOCKER_HOST must lead to a container engine that runs, got {host}: {reason}\n"
    assert (end.value.code, capsys.readouterr().err) == (2, sentence)


@pytest.mark.parametrize(
    ("says", "user"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=default"]}, None),
        ({"SecurityOptions": None, "Rootless": False}, None),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}, "0:0"),  # Docker
        ({"SecurityOptions": ["name=seccomp,profile=default"], "Rootless": True}, "0:0"),  # podman
    ],
)
def test_what_containers_write_belongs_to_who_runs_the_command(
    says: dict[str, Any], user: str | None, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp.local import docker_task_handler

    monkeypatch.setattr(docker_task_handler, "run_docker_container", None)
    monkeypatch.setattr(os, "getuid", lambda: 501)
    monkeypatch.setattr(os, "getgid", lambda: 20)
    engine.says = says
    runner = docker_runner({"environment": [], "home": "/home", "mounts": {}, "labels": {}})
    assert runner.container_run_args["user"] == (user or "501:20")


@pytest.mark.parametrize("same", [True, False])
def test_masks_are_compared(same: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[list[str]] = []

    def run_once(home: Path, options: list[str]) -> dict[str, str]:
        asked.append(options)
        return {"mask": "1", "mask.parquet": "2" if same or "--image" in options else "3"}

    monkeypatch.setattr(containers, "run_once", run_once)
    monkeypatch.setattr(containers, "find_image", str)
    monkeypatch.setattr(sys, "argv", ["containers", "toy:1", "--keep", "0.5"])
    if same:
        containers.main()
        assert capsys.readouterr().out.endswith("the masks are the same, byte for byte\n")
    else:
        with pytest.raises(SystemExit, match="the masks must be the same"):
            containers.main()
    assert asked == [["--keep", "0.5"], ["--image", "toy:1", "--keep", "0.5"]]
