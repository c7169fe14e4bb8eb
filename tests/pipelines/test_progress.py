import io

import pytest
from rich.console import Console

from secateur.pipelines import progress as module
from secateur.pipelines.events import Event
from secateur.pipelines.progress import LiveProgress, PlainProgress, progress
from secateur.pipelines.state import RunState, Step


def state() -> RunState:
    return RunState([Step("ingest", label="ingest"), Step("prune-2", "full", "baseline full")])


def plain(events: list[Event], monkeypatch: pytest.MonkeyPatch, every: float = 1.0) -> list[str]:
    """What is printed when `every` seconds lie between the events."""
    now = iter(every * i for i in range(1, 1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    console = Console(file=io.StringIO(), width=40)
    with progress(console, RunState(state().steps, clock=lambda: 0.0)) as watch:
        assert isinstance(watch, PlainProgress)
        for event in events:
            watch(event)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        Event("reused", "ingest"),
        Event("starting", "prune-2"),
        Event("started", "prune-2", "full", seconds=1.0),
        Event("line", "prune-2", "full", "epoch 1: loss [red]0.3 and quite a long line that is not to be broken"),
        Event("done", "prune-2", "full", seconds=12.34),
    ]
    assert plain(events, monkeypatch, every=10) == [
        "ingest: reused from an earlier run",
        "baseline full: started",
        "baseline full: epoch 1: loss [red]0.3 and quite a long line that is not to be broken",
        "baseline full: done in 12.3 s",
    ]


def test_lines_of_the_log_are_thinned_but_warnings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [Event("line", "ingest", text=f"epoch {i}") for i in range(20)]
    printed = plain([Event("started", "ingest"), *lines], monkeypatch, every=0.5)
    assert 2 <= len(printed) <= 6
    warnings = [Event("line", "ingest", text=f"warning: {i}") for i in range(20)]
    assert len(plain([Event("started", "ingest"), *warnings], monkeypatch, every=0.01)) == 21


def test_the_live_table_shows_every_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    run = state()
    with progress(console, run) as watch:
        assert isinstance(watch, LiveProgress)
        watch(Event("started", "prune-2", "full", seconds=1.0))
        watch(Event("line", "prune-2", "full", "epoch 3: a line that is far too long for this narrow terminal"))
        watch(Event("reused", "ingest"))
    ingest, baseline = [line.split() for line in console.file.getvalue().splitlines()][-3:-1]  # type: ignore[attr-defined]
    assert ingest[-1] == "reused"
    assert baseline[:7] == ["baseline", "full", "running", "1", "s", "epoch", "3:"]
    assert baseline[-1].endswith("…")
