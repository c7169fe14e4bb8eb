"""From the log of a local run to what happened: a parser of the lines that kfp.local and our steps print.

Steps of a loop run side by side, and kfp.local gives all of them one name; only the lines of `secateur.logs` tell them
apart. So a task is known by its KFP name alone until its first such line.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from secateur import logs

Kind = Literal["starting", "started", "line", "done", "reused", "failed"]

COLOUR = re.compile(r"\x1b\[\d*m")
EXECUTING = re.compile(r"Executing task '([\w-]+)'")
FAILURE = re.compile(r"Task '([\w-]+)' finished with status FAILURE")
CACHE_HIT = re.compile(r"Task ([\w-]+) cache hit")
EXCEPTION = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt|Warning)(?:: .*)?$")
SILENT_END = "it ended without an error message; it may have been killed, as for want of memory"


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run."""

    kind: Kind
    task: str  # KFP's name: "prune", or "prune-2" for the second use of that component
    part: str = ""  # what tells tasks of one name apart, once it is known
    text: str = ""  # a line of the step's log, or what went wrong
    seconds: float = 0.0  # from the task's start: until its own work began (started), or until now (done)


class LogParser:
    """Reads a run's log line by line.

    Attributes:
        traceback: Lines of the last traceback.
        exception: The line that ends it, or empty.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.traceback: list[str] = []
        self.exception = ""
        self._clock = clock
        self._unnamed: dict[str, list[float]] = defaultdict(list)
        self._running: dict[tuple[str, str], float] = {}
        self._reasons: dict[str, tuple[str, str]] = {}

    def feed(self, line: str) -> Iterator[Event]:
        """Tell what a line says, if anything."""
        line = COLOUR.sub("", line).rstrip("\n")
        if said := logs.LINE.search(line):
            yield from self._own_line(said)
        elif match := EXECUTING.search(line):
            self._unnamed[match[1]].append(self._clock())
            self.traceback, self.exception = [], ""
            yield Event("starting", match[1])
        elif match := CACHE_HIT.search(line):
            yield Event("reused", match[1])
        elif match := FAILURE.search(line):
            part, reason = self._reasons.get(match[1], ("", self.exception or SILENT_END))
            yield Event("failed", match[1], part, reason)
        else:
            self._keep_traceback(line)

    def _own_line(self, said: re.Match[str]) -> Iterator[Event]:
        step, part = said["step"], said["part"] or ""
        if said["event"] == "started":
            task = self._claim(step, part)
            yield Event("started", task, part, seconds=self._clock() - self._running[task, part])
            return
        task = next((t for t, p in self._running if base(t) == step and p == part), step)
        if said["event"] == "done":
            yield Event("done", task, part, seconds=self._clock() - self._running.pop((task, part), self._clock()))
        elif said["reason"] is not None:
            self._reasons[task] = part, said["reason"]
        elif said["trace"] is not None:
            self._keep_traceback(said["trace"])
        else:
            yield Event("line", task, part, said["text"] or "")

    def _claim(self, step: str, part: str) -> str:
        """Find the task, started but not yet named, that a step's first line belongs to."""
        task = next((t for t, starts in self._unnamed.items() if starts and base(t) == step), step)
        starts = self._unnamed[task]
        self._running[task, part] = starts.pop(0) if starts else self._clock()
        return task

    def _keep_traceback(self, line: str) -> None:
        if line.lstrip().startswith("Traceback (most recent call last)"):
            self.traceback, self.exception = [line], ""
        elif self.traceback and not self.exception:
            self.traceback.append(line)
            self.exception = line.strip() if EXCEPTION.match(line.strip()) else ""


def base(task: str) -> str:
    """The component's name: KFP numbers its second use and those that follow.

    >>> base("prune-2"), base("warmup")
    ('prune', 'warmup')
    """
    return re.sub(r"-\d+$", "", task)
