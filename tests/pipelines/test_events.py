from collections.abc import Callable

import pytest

from secateur.pipelines.events import SILENT_END, Event, LogParser


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def feed(clock: Clock) -> Callable[..., list[Event]]:
    parser = LogParser(clock)

    def read(line: str, at: float = 0.0) -> list[Event]:
        clock.now = at
        return list(parser.feed(line + "\n"))

    return read


def executing(task: str) -> str:
    return f"07:25:03.123 - INFO - Executing task \x1b[96m'{task}'\x1b[0m"


def failure(task: str) -> str:
    return f"07:25:09.123 - ERROR - Task \x1b[96m'{task}'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m"


def test_a_step_from_start_to_end(feed: Callable[..., list[Event]]) -> None:
    assert feed(executing("warmup"), at=10) == [Event("starting", "warmup")]
    assert feed("    07:25:04 secateur [warmup] started", at=13) == [Event("started", "warmup", seconds=3)]
    assert feed("    07:25:05 secateur [warmup]: epoch 1: loss [0.3]") == [
        Event("line", "warmup", text="epoch 1: loss [0.3]")
    ]
    assert feed("    07:25:09 secateur [warmup] done, peak memory 812 MB", at=20) == [
        Event("done", "warmup", seconds=10)
    ]


def test_steps_of_a_loop_are_told_apart_by_their_own_lines(feed: Callable[..., list[Event]]) -> None:
    feed(executing("prune-2"), at=1)
    feed(executing("prune-2"), at=2)
    assert feed("        07:25:04 secateur [prune random] started", at=5) == [
        Event("started", "prune-2", "random", seconds=4)
    ]
    assert feed("07:25:04 secateur [prune full] started", at=7) == [Event("started", "prune-2", "full", seconds=5)]
    assert feed("07:25:04 secateur [prune full]: hello")[0].part == "full"
    assert feed("07:25:04 secateur [prune random] done, peak memory 1 MB", at=9)[0].seconds == 8


def test_the_same_component_used_twice(feed: Callable[..., list[Event]]) -> None:
    feed(executing("prune"))
    assert feed("secateur [prune random] started")[0].task == "prune"
    assert feed("secateur [prune random] done, peak memory 1 MB")[0].task == "prune"
    feed(executing("prune-2"))
    assert feed("secateur [prune random] started")[0].task == "prune-2"
    assert feed("secateur [prune random]: epoch 1")[0].task == "prune-2"


def test_a_cache_hit(feed: Callable[..., list[Event]]) -> None:
    assert feed("2026 - INFO - Task embed-2 cache hit (key=0123456789ab); skipping execution.") == [
        Event("reused", "embed-2")
    ]


def test_a_step_that_says_why_it_failed() -> None:
    parser = LogParser()
    lines = [
        executing("prune"),
        "secateur [prune adaptive] started",
        "secateur [prune adaptive] failed: keep must be in (0, 1], got 1.4",
        "secateur [prune adaptive] | Traceback (most recent call last):",
        'secateur [prune adaptive] |   File "x.py", line 3, in f',
        "secateur [prune adaptive] | secateur.errors.InputError: keep must be in (0, 1], got 1.4",
        "something that another step prints",
        failure("prune"),
    ]
    events = [event for line in lines for event in parser.feed(line)]
    assert events[-1] == Event("failed", "prune", "adaptive", "keep must be in (0, 1], got 1.4")
    assert parser.traceback == [
        "Traceback (most recent call last):",
        '  File "x.py", line 3, in f',
        "secateur.errors.InputError: keep must be in (0, 1], got 1.4",
    ]


def test_a_step_that_fails_before_it_can_say_why() -> None:
    parser = LogParser()
    lines = [
        executing("embed"),
        "    Traceback (most recent call last):",
        '      File "x.py", line 3, in <module>',
        "    ModuleNotFoundError: No module named 'open_clip'",
        "",
        failure("embed"),
    ]
    events = [event for line in lines for event in parser.feed(line)]
    assert events[-1] == Event("failed", "embed", text="ModuleNotFoundError: No module named 'open_clip'")
    assert len(parser.traceback) == 3


def test_a_step_that_was_killed(feed: Callable[..., list[Event]]) -> None:
    feed(executing("embed"))
    feed("secateur [embed] started")
    feed("Killed")
    assert feed(failure("embed")) == [Event("failed", "embed", text=SILENT_END)]


def test_lines_of_others_say_nothing(feed: Callable[..., list[Event]]) -> None:
    assert feed("[KFP Executor 2026-11-21 07:45:35,305 INFO]: Looking for component `start`") == []
    assert feed("07:45:35.395 - INFO - Task 'start' finished with status SUCCESS") == []
