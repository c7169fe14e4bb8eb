"""Which step of a run is where, as its events tell."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from secateur.pipelines.events import Event

Status = Literal["waiting", "running", "done", "reused", "failed"]


@dataclass
class Step:
    """One task of the run, and what people call it."""

    task: str  # KFP's name
    part: str = ""  # method and ratio, or shard, where that tells tasks of one name apart; empty until it is known
    label: str = ""
    status: Status = "waiting"
    began: float = 0.0  # on the clock of `RunState`
    seconds: float = 0.0  # from start to end
    start_up: float = 0.0  # seconds of those before its own work began: interpreter and imports
    line: str = ""  # the last line of its log


def expected_steps(arguments: Mapping[str, Any]) -> list[Step]:
    """The steps that `prune_pipeline` will take; those for further shards join when they are met."""
    method, keep = arguments["method"], f"{arguments['keep']:g}"
    return [
        Step("ingest", label="ingest"),
        Step("embed", label="embed"),
        Step("warmup", label="warmup"),
        Step("prune", f"{method} {keep}", f"prune {method}"),
        *(Step("prune-2", f"{baseline} {keep}", f"baseline {baseline}") for baseline in arguments["baselines"]),
        Step("evaluate", label="evaluate"),
        Step("publish", label="publish"),
    ]


@dataclass
class RunState:
    """The steps of a run in the order in which they are shown."""

    steps: list[Step]
    clock: Callable[[], float] = time.monotonic
    _hits: Counter[str] = field(default_factory=Counter)

    def apply(self, event: Event) -> Sequence[Step]:
        """Note what happened; give the steps that it happened to."""
        if event.kind == "starting":
            self._begin(event.task)
            return ()
        if event.kind == "reused":
            self._hits[event.task] += 1
            return self._resolve_hits(event.task)
        step = self._find(event.task, event.part)
        if event.kind == "started":
            step.status, step.start_up, step.began = "running", event.seconds, self.clock() - event.seconds
            return (step, *self._resolve_hits(event.task))
        if event.kind == "done":
            step.status, step.seconds = "done", event.seconds
        elif event.kind == "failed":
            step.status, step.line = "failed", event.text
        else:
            step.line = event.text
        return (step,)

    def labels(self, status: Status) -> list[str]:
        """What the steps in a state are called."""
        return [step.label for step in self.steps if step.status == status]

    @property
    def start_up(self) -> float:
        """Seconds in which some step had started but not begun its own work; side by side, they count once."""
        total = until = 0.0
        for began, ended in sorted((step.began, step.began + step.start_up) for step in self.steps if step.start_up):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total

    def _of(self, task: str) -> list[Step]:
        return [step for step in self.steps if step.task == task]

    def _begin(self, task: str) -> None:
        """Show a step as running before it has said a word, where there is no doubt which one it is."""
        waiting = self._of(task)
        if len(waiting) == 1 and waiting[0].status == "waiting":
            waiting[0].status, waiting[0].began = "running", self.clock()

    def _find(self, task: str, part: str) -> Step:
        """The step of an event; a new one for a task that was not expected, such as a further shard."""
        known = self._of(task)
        for step in known:
            if step.part == part:
                return step
        if known and not known[0].part:
            known[0].part = part
            return known[0]
        step = Step(task, part, f"{task} {part}".strip())
        self.steps.insert(self.steps.index(known[-1]) + 1 if known else len(self.steps), step)
        return step

    def _resolve_hits(self, task: str) -> Sequence[Step]:
        """Tell which steps of a loop were reused, once all the others have started: a hit does not say its name."""
        waiting = [step for step in self._of(task) if step.status == "waiting"]
        if not waiting or self._hits[task] < len(waiting):
            return ()
        for step in waiting:
            step.status = "reused"
        return waiting
