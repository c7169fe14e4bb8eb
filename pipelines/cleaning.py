"""What a home holds, and the removal of what is old: runs, the cache's notes of what lies in them, and unused state.

The registry, its store, and MLflow are never touched: what was published stays, whatever becomes of the runs.
"""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from secateur.errors import InputError
from secateur.files import read_json
from secateur.pipelines.local import Home
from secateur.pipelines.worker import JOB_FILE, OUTPUTS_FILE
from secateur.records.git import without_credentials
from secateur.records.places import places

DAY = 86400.0  # seconds
STATE, SPOOL = "state", "spool"
UNITS = {"h": DAY / 24, "d": DAY, "w": 7 * DAY}
HOLDS = {  # part of a home, and what lies there
    "runs": "outputs and logs of runs",
    "cache": "notes of which outputs can be used again",
    "state": "checkpoints and embeddings",
    "spool": "what MLflow is still to be told",
    "mlflow.db": "MLflow's runs",
    "mlartifacts": "MLflow's artifacts and models",
    "registry.git": "published versions",
    "store": "data of published versions",
    "inspect": "reports of inspections",
}


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path
    age: float  # seconds since it was last written to
    size: int  # bytes
    version: str  # that it published; empty for none
    running: bool  # it may still be going on
    unsent: bool = False  # MLflow is still to be told of it
    uses: frozenset[str] = frozenset()  # names of the runs whose folders it names

    @property
    def busy(self) -> bool:
        """Whether it has to stay, whatever its age."""
        return self.running or self.unsent


@dataclass(frozen=True)
class Entry:
    """Something in the state: the checkpoints of one piece of work, the embeddings of one model."""

    folder: Path
    age: float  # seconds since it was last read or written
    size: int  # bytes


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(found.st_size for found in stats(path) if stat.S_ISREG(found.st_mode))


def stats(path: Path) -> Iterator[os.stat_result]:
    """Of a file or folder and of all in it; a run that is going on may take some away meanwhile."""
    inside = (Path(root, name) for root, folders, files in os.walk(path) for name in (*folders, *files))
    for found in (path, *inside):
        with suppress(FileNotFoundError):
            yield found.lstat()


def find_runs(home: Home, now: float) -> list[Run]:
    """The runs of a home, the newest first."""
    runs = []
    for folder in sorted(home.runs.glob("*"), reverse=True):
        age = now - max((found.st_mtime for found in stats(folder)), default=now)
        outputs = folder / OUTPUTS_FILE
        version = read_json(outputs).get("version", "") if outputs.is_file() else ""
        running = not outputs.is_file() and age < DAY
        unsent = (home.spool / folder.name).exists()
        runs.append(Run(folder, age, size_of(folder), version, running, unsent, used_by(folder)))
    return runs


def find_state(home: Home, now: float) -> list[Entry]:
    """What a home's own state holds, see `secateur.state`; messages to MLflow, which may wait there too, are none."""
    folders = [f for f in sorted((home.folder / STATE).glob("*/*/")) if f.parent.name != SPOOL]
    return [Entry(f, now - max((s.st_mtime for s in stats(f)), default=now), size_of(f)) for f in folders]


def used_by(folder: Path) -> frozenset[str]:
    """Names of the runs whose folders a run names: those that it was given, and those whose outputs it took over."""
    runs, found = folder.parent.resolve(), set()
    for file in (folder / JOB_FILE, folder / OUTPUTS_FILE):
        for text in texts(read_json(file)) if file.is_file() else ():
            place = Path(os.path.realpath(text)) if Path(text).is_absolute() else runs
            if place != runs and place.is_relative_to(runs):
                found.add(place.relative_to(runs).parts[0])
    return frozenset(found)


def texts(entry: object) -> Iterator[str]:
    """All texts in what JSON says."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict | list):
        for value in entry.values() if isinstance(entry, dict) else entry:
            yield from texts(value)


def chosen(runs: Sequence[Run], older_than: float | None, keep_last: int | None) -> list[Run]:
    """The runs to remove: those that are too old and beyond the number to keep, of the rules that are given.

    A run whose folder holds what another one that stays names, as after a cache hit, stays with it.

    Args:
        runs: The newest first.
        older_than: Seconds; None for any age.
        keep_last: How many of the newest stay; None for no number.
    """
    if older_than is None and keep_last is None:
        return []
    beyond = runs[keep_last or 0 :]
    going = [run for run in beyond if not run.busy and (older_than is None or run.age > older_than)]
    while used := {name for run in runs if run not in going for name in run.uses} & {r.folder.name for r in going}:
        going = [run for run in going if run.folder.name not in used]
    return going


def remove(home: Home, runs: Sequence[Run], entries: Sequence[Entry] = ()) -> None:
    """Remove state, runs, and before those the cache's notes of them, so that nobody is sent to what is gone."""
    gone = [run.folder for run in runs]
    for note in home.cache.glob("*.json"):
        if any(Path(uri).is_relative_to(folder) for uri in uris(note) for folder in gone):
            note.unlink(missing_ok=True)
    for folder in (*gone, *(entry.folder for entry in entries)):
        shutil.rmtree(folder)


def uris(note: Path) -> list[str]:
    """Where the outputs lie that a note of KFP's cache names."""
    found: list[str] = []

    def note_uri(entry: dict[str, Any]) -> dict[str, Any]:
        found.extend(value for key, value in entry.items() if key == "uri")
        return entry

    json.loads(note.read_text(), object_hook=note_uri)
    return found


def read_age(text: str) -> float | None:
    """An age such as 30d, in seconds; None for an empty text.

    Raises:
        InputError: It is none.

    >>> read_age("12h")
    43200.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if text and not found:
        raise InputError(f"older_than must be a number with h, d or w, as 30d, got {text!r}")
    return float(found[1]) * UNITS[found[2]] if found else None


def clean(
    home: Annotated[Path, typer.Option(help="folder of the runs")] = Path(".secateur"),
    older_than: Annotated[
        str,
        typer.Option(
            help="remove runs last written to, and checkpoints and embeddings last read or written to, so long ago, "
            "as 12h, 30d or 8w"
        ),
    ] = "",
    keep_last: Annotated[int, typer.Option(help="remove runs but for so many of the newest")] = -1,
    yes: Annotated[bool, typer.Option("--yes", help="remove, instead of saying what would be removed")] = False,
) -> None:
    """List what runs, cache, state and registry hold, and remove what is old; what was published always stays."""
    place, age = Home(home.absolute()), read_age(older_than)
    if not place.folder.is_dir():
        raise InputError(f"home must be a folder with runs, got {str(home)!r}")
    console, now = Console(), time.time()
    runs, state = find_runs(place, now), find_state(place, now)
    show(console, place, runs, state)
    going = chosen(runs, age, None if keep_last < 0 else keep_last)
    unused = [entry for entry in state if age is not None and entry.age > age]
    if (going or unused) and (running := [run.folder.name for run in runs if run.running]):
        raise InputError(f"home must be without a run that may still use what older ones made, got {running[0]}")
    if older_than or keep_last >= 0:
        total = f"{len(going)} of {len(runs)} runs, {megabytes(sum(run.size for run in going))}"
        total += f", and {len(unused)} of {len(state)} entries of the state, {megabytes(sum(e.size for e in unused))}"
        if yes:
            remove(place, going, unused)
        console.print(
            f"{'removed' if yes else 'with --yes, this would remove'} {total}", highlight=False, soft_wrap=True
        )


def show(console: Console, home: Home, runs: Sequence[Run], state: Sequence[Entry]) -> None:
    """Print what a home holds, its runs, and its state."""
    parts, table, entries = (Table(box=box.SIMPLE_HEAD) for _ in range(3))
    for heading in ("part", "size", "what"):
        parts.add_column(heading, justify="right" if heading == "size" else "left")
    for name, what in HOLDS.items():
        if (home.folder / name).exists():
            parts.add_row(name, megabytes(size_of(home.folder / name)), what)
    for heading in ("run", "days old", "size", "published"):
        table.add_column(heading, justify="left" if heading in ("run", "published") else "right", no_wrap=True)
    for run in runs:
        busy = " (not done)" if run.busy else ""
        table.add_row(run.folder.name, f"{run.age / DAY:.1f}", megabytes(run.size), run.version + busy)
    for heading in ("state", "days unused", "size"):
        entries.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for entry in state:
        name = "/".join(entry.folder.parts[-2:])
        entries.add_row(name, f"{entry.age / DAY:.1f}", megabytes(entry.size))
    console.print(parts)
    console.print(table)
    if state:
        console.print(entries)
    registry = places(home.folder).registry
    if registry != str(home.folder / "registry.git"):
        console.print(f"registry {without_credentials(registry)}", markup=False, highlight=False, soft_wrap=True)


def megabytes(size: int) -> str:
    """A size for people.

    >>> megabytes(1_530_000)
    '1.5 MB'
    """
    return f"{size / 1e6:,.1f} MB"
