"""What a person sees while a run goes on: a live table in a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from secateur.pipelines.events import Event
from secateur.pipelines.state import RunState, Step

SECONDS_BETWEEN_LINES = 5.0
STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "reused": "blue", "failed": "bold red"}


class Progress(Protocol):
    """Shows a run while it goes on."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last state, and end."""

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""


def progress(console: Console, state: RunState) -> Progress:
    """The way to show a run that fits the console."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(console, state) if live else PlainProgress(console, state)


class PlainProgress:
    """One line when a step starts and ends, and a line of its log now and then; all of them are in the log file."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.console, self.state = console, state
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Print what is worth a line."""
        for step in self.state.apply(event):
            if step.status == "reused":
                self._print(step, "reused from an earlier run")
            elif event.kind == "started":
                self._print(step, "started")
            elif event.kind == "done":
                self._print(step, f"done in {step.seconds:.1f} s")
            elif event.kind == "line" and self._due(step):
                self._print(step, step.line)

    def _due(self, step: Step) -> bool:
        quiet_for = time.monotonic() - self._printed.get(step.label, 0.0)
        return step.line.startswith("warning: ") or quiet_for >= SECONDS_BETWEEN_LINES

    def _print(self, step: Step, text: str) -> None:
        self._printed[step.label] = time.monotonic()
        self.console.print(f"{step.label}: {text}", markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A table of all steps that is drawn anew several times a second."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.state = state
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Note it; the next drawing shows it."""
        self.state.apply(event)

    def table(self) -> Table:
        """The steps as they are now."""
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for step in self.state.steps:
            style = STYLES[step.status]
            seconds = self.state.clock() - step.began if step.status == "running" else step.seconds
            table.add_row(
                Text(step.label, style),
                Text(step.status, style),
                Text(f"{seconds:.0f} s" if seconds else "", "dim"),
                Text("" if step.status in ("done", "reused") else step.line, "dim"),
            )
        return table
