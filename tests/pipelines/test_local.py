"""The runner on a toy pipeline: real KFP, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from secateur.pipelines.events import SILENT_END, Event
from secateur.pipelines.local import Home, StepError, run_pipeline

HERE = Path(__file__).parent
TOY = "toy_pipeline:toy_pipeline"


def run_toy(folder: Path, *, cache: bool = True, pipeline: str = TOY, **arguments: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    environment = {"PYTHONPATH": str(HERE), "TOY": "from outside"}
    outputs = run_pipeline(Home(folder), arguments, environment, events.append, pipeline=pipeline, cache=cache)
    return outputs, events


def test_a_run_and_its_repetition(tmp_path: Path) -> None:
    home = tmp_path / "python3 and spaces"  # KFP rewrites python3 within arguments
    outputs, events = run_toy(home, mode="plain")
    assert outputs["Output"] == "plain from outside"
    assert sorted((e.task, e.part) for e in events if e.kind == "done") == [
        ("start", ""), ("work", "a"), ("work", "b"), ("work-2", "plain"),
    ]  # fmt: skip
    assert Event("line", "start", text="writing hello") in events
    assert Event("line", "work", "a", "warning: mode a") in events
    log = Path(outputs["log"])
    assert "a line of somebody else" in log.read_text()
    assert json.loads((log.parent / "job.json").read_text())["arguments"] == {"mode": "plain"}
    assert (log.parent / "start" / "data").read_text() == "hello"

    again, events = run_toy(home, mode="plain")
    assert again["Output"] == outputs["Output"]
    assert [e.kind for e in events] == ["reused"] * 4

    _, events = run_toy(home, mode="other")
    assert sorted(e.task for e in events if e.kind == "reused") == ["start", "work", "work"]

    _, events = run_toy(home, mode="plain", cache=False)
    assert not [e for e in events if e.kind == "reused"]


@pytest.mark.parametrize(
    ("mode", "sentence", "last_line"),
    [
        ("refuse", "keep must be in (0, 1], got 1.4", "secateur.errors.InputError: keep must be in (0, 1], got 1.4"),
        ("break", "KeyError: 'a bug'", "KeyError: 'a bug'"),
        ("vanish", SILENT_END, None),
    ],
)
def test_a_step_that_fails(tmp_path: Path, mode: str, sentence: str, last_line: str | None) -> None:
    with pytest.raises(StepError) as caught:
        run_toy(tmp_path, mode=mode)
    assert str(caught.value) == sentence
    assert caught.value.event.task == "work-2"
    assert caught.value.log.is_file()
    assert (caught.value.traceback.splitlines() or [None])[-1] == last_line


def test_a_failing_step_of_a_loop(tmp_path: Path) -> None:
    with pytest.raises(StepError) as caught:
        run_toy(tmp_path, mode="plain", modes=["a", "refuse"])
    assert (caught.value.event.task, caught.value.event.part) == ("work", "refuse")


def test_a_pipeline_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="ModuleNotFoundError: No module named 'nowhere'") as caught:
        run_toy(tmp_path, pipeline="nowhere:pipeline")
    assert caught.value.event.task == "pipeline"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_when_the_command_dies(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "from pathlib import Path; from secateur.pipelines.local import *;"
        f"run_pipeline(Home(Path({str(tmp_path)!r})), dict(mode='hang'), {{}}, print, pipeline={TOY!r})"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_interrupts,
    )
    step = int(wait_for(tmp_path.glob, "runs/*/start/pid").read_text())
    group = os.getpgid(step)
    assert group not in (step, os.getpgid(0))
    command.send_signal(number)
    command.wait(20)
    deadline = time.monotonic() + 10
    while alive(group):
        assert time.monotonic() < deadline, "a process stayed behind"
        time.sleep(0.05)


def heed_interrupts() -> None:
    """A shell that runs the tests in the background has interrupts ignored, by all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(glob: Any, pattern: str) -> Path:
    deadline = time.monotonic() + 60
    while True:
        for path in glob(pattern):
            if path.stat().st_size:
                return Path(path)
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.05)


def alive(group: int) -> list[str]:
    """Processes of a group, without the remains that nobody has taken away yet."""
    shown = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in shown.stdout.splitlines()]
    return [row[2] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]
