"""What a home holds, and the removal of old runs: their folders, and the cache's notes of what lies in them.

The registry, its store, and MLflow are never touched: what was published stays, whatever becomes of the runs.
"""

import json
import re
import shutil
import time
from collections.abc import Sequence
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
from secateur.pipelines.worker import OUTPUTS_FILE
from secateur.records.git import without_credentials
from secateur.records.places import places

DAY = 86400.0  # seconds
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
    busy: bool  # it may still be going on, or MLflow is still to be told of it


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def find_runs(home: Home, now: float) -> list[Run]:
    """The runs of a home, the newest first."""
    runs = []
    for folder in sorted(home.runs.glob("*"), reverse=True):
        newest = max((file.stat().st_mtime for file in folder.rglob("*")), default=folder.stat().st_mtime)
        outputs = folder / OUTPUTS_FILE
        version = read_json(outputs).get("version", "") if outputs.is_file() else ""
        busy = (home.spool / folder.name).exists() or (not outputs.is_file() and now - newest < DAY)
        runs.append(Run(folder, now - newest, size_of(folder), version, busy))
    return runs


def chosen(runs: Sequence[Run], older_than: float | None, keep_last: int | None) -> list[Run]:
    """The runs to remove: those that are too old and beyond the number to keep, of the rules that are given.

    Args:
        runs: The newest first.
        older_than: Seconds; None for any age.
        keep_last: How many of the newest stay; None for no number.
    """
    if older_than is None and keep_last is None:
        return []
    beyond = runs[keep_last or 0 :]
    return [run for run in beyond if not run.busy and (older_than is None or run.age > older_than)]


def remove(home: Home, runs: Sequence[Run]) -> None:
    """Remove runs, and first the cache's notes of them, so that nobody is sent to a folder that is gone."""
    gone = [run.folder for run in runs]
    for note in home.cache.glob("*.json"):
        if any(Path(uri).is_relative_to(folder) for uri in uris(note) for folder in gone):
            note.unlink()
    for folder in gone:
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
    older_than: Annotated[str, typer.Option(help="remove runs last written to so long ago, as 12h, 30d or 8w")] = "",
    keep_last: Annotated[int, typer.Option(help="remove runs but for so many of the newest")] = -1,
    yes: Annotated[bool, typer.Option("--yes", help="remove, instead of saying what would be removed")] = False,
) -> None:
    """List what runs, cache and registry hold, and remove old runs; what was published always stays."""
    place, age = Home(home.absolute()), read_age(older_than)
    if not place.folder.is_dir():
        raise InputError(f"home must be a folder with runs, got {str(home)!r}")
    console, runs = Console(), find_runs(place, time.time())
    show(console, place, runs)
    going = chosen(runs, age, None if keep_last < 0 else keep_last)
    if older_than or keep_last >= 0:
        total = f"{len(going)} of {len(runs)} runs, {megabytes(sum(run.size for run in going))}"
        if yes:
            remove(place, going)
        console.print(
            f"{'removed' if yes else 'with --yes, this would remove'} {total}", highlight=False, soft_wrap=True
        )


def show(console: Console, home: Home, runs: Sequence[Run]) -> None:
    """Print what a home holds, and its runs."""
    parts, table = Table(box=box.SIMPLE_HEAD), Table(box=box.SIMPLE_HEAD)
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
    console.print(parts)
    console.print(table)
    registry = places(home.folder).registry
    if registry != str(home.folder / "registry.git"):
        console.print(f"registry {without_credentials(registry)}", markup=False, highlight=False, soft_wrap=True)


def megabytes(size: int) -> str:
    """A size for people.

    >>> megabytes(1_530_000)
    '1.5 MB'
    """
    return f"{size / 1e6:,.1f} MB"
