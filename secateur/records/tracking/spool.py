"""What is to be sent to MLflow, as files: a step appends lines, and whoever sends removes what has arrived.

    <spool>/<key>/target.json     where the pipeline run's lines go; its MLflow run, once that is known
    <spool>/<key>/<step>.jsonl    what one step has to say, a line for each message
    <spool>/<key>/bundle/         what `publish` has to say, see `secateur.records.tracking.bundles`

The key is the pipeline run's. Nothing here imports MLflow, so that a step can speak without waiting for it.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import fsspec

from secateur.files import read_json, replacing, write_json
from secateur.records.git import without_credentials
from secateur.records.places import Places
from secateur.records.tracking.facts import Point

log = logging.getLogger(__name__)

TARGET_FILE = "target.json"
STATUS_FILE = "status.json"  # how a run ended that could not be told so
SENT_FILE = "sent.json"  # bytes of each file that have arrived
BUNDLE = "bundle"
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Target:
    """Where the lines of a pipeline run go."""

    tracking_uri: str  # without credentials: those come from the environment of whoever sends
    experiment: str
    key: str
    run_id: str | None = None  # of MLflow, once it is known
    name: str = ""  # of a run that is made new


@dataclass(frozen=True)
class Message:
    """Some figures for one MLflow run."""

    arm: str = ""  # the child run that they belong to; empty: the pipeline run itself
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[Point] = ()


class SpoolFile:
    """The messages of one step; each is on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path, self.broken = path, False
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, message: Message) -> None:
        """Append a message; a disk that takes none ends the messages, not the training."""
        if self.broken:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:  # one call, so a reader sees whole lines
                file.write(json.dumps(asdict(message)) + "\n")
        except OSError as error:
            self.broken = True
            log.warning("what MLflow is to know cannot be written to %s: %s", self.path, error)


def read_messages(path: Path, offset: int = 0) -> tuple[list[Message], int]:
    """The whole messages of a file from an offset on, and the offset behind them; a line half written waits.

    A line that is none, as after a full disk, is left out.
    """
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    messages = []
    for line in whole.splitlines():
        try:
            entry = json.loads(line)
            messages.append(Message(**entry | {"points": [Point(**point) for point in entry["points"]]}))
        except (ValueError, TypeError, KeyError):
            log.warning("%s holds a line that is no message", path)
    return messages, offset + len(whole)


def begin(where: Places, name: str = "") -> Path:
    """Make the folder of the pipeline run that the environment names, and say there where its messages go.

    Raises:
        ValueError: The environment names none.
    """
    key = where.key or where.run_id
    if key is None:
        raise ValueError("there is no pipeline run to speak for")
    folder = where.spool / key
    if not (folder / TARGET_FILE).is_file():
        target = Target(without_credentials(where.tracking_uri), where.experiment, key, where.run_id, name)
        write_json(folder / TARGET_FILE, asdict(target))
    return folder


def read_target(folder: Path) -> Target:
    """Where the messages of a folder go."""
    return Target(**read_json(folder / TARGET_FILE))


def known_run(where: Places) -> str | None:
    """The MLflow run of the pipeline run that the environment names, as far as is known without asking a server."""
    file = where.spool / (where.key or "") / TARGET_FILE
    return where.run_id or (read_target(file.parent).run_id if where.key and file.is_file() else None)


def keep_bundle(folder: Path, bundle: Path) -> None:
    """Keep what `publish` could not send."""
    with replacing(folder / BUNDLE) as temporary:
        shutil.copytree(bundle, temporary)


def note_run(folder: Path, run_id: str) -> None:
    """Note the MLflow run of a folder, for others and for later."""
    target = read_target(folder)
    if target.run_id != run_id:  # else its time stays that of its beginning
        write_json(folder / TARGET_FILE, asdict(replace(target, run_id=run_id)))


def message_files(folder: Path) -> list[Path]:
    """The files of all steps."""
    return sorted(folder.glob("*.jsonl"))


def sent_bytes(folder: Path) -> dict[str, int]:
    """How much of each file, by its name, has arrived."""
    file = folder / SENT_FILE
    return dict(read_json(file)) if file.is_file() else {}


def waiting(folder: Path) -> int:
    """How many messages, and bundles, of a folder have not been sent."""
    sent = sent_bytes(folder)
    messages = sum(len(read_messages(file, sent.get(file.name, 0))[0]) for file in message_files(folder))
    return messages + (folder / BUNDLE).is_dir()


def folders(spool: Path) -> list[Path]:
    """The folders of all pipeline runs with something left to send."""
    return sorted(file.parent for file in spool.glob(f"*/{TARGET_FILE}"))


@contextmanager
def sole_sender(folder: Path) -> Iterator[bool]:
    """Be the only one who sends what is in a folder; False where another process does so already."""
    try:
        file = (folder / LOCK_FILE).open("w")
    except FileNotFoundError:  # who had it has sent it all and removed it
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def carry_off(folder: Path, state_uri: str) -> None:
    """Copy what was not sent to a state elsewhere, for a pod whose disk is gone soon."""
    fs, root = fsspec.core.url_to_fs(f"{state_uri.rstrip('/')}/spool/{folder.name}")
    for file in sorted(folder.rglob("*"), key=lambda file: file.name == TARGET_FILE):  # it says that the rest is there
        if file.is_file() and file.name != LOCK_FILE:
            place = f"{root}/{file.relative_to(folder)}"
            fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), place)


def bring_back(spool: Path, state_uri: str) -> None:
    """Copy what earlier pods left in a state elsewhere to the spool here; what is here already stays as it is.

    The state keeps its copy until `drop_copy`: this disk may be gone before all is sent.
    """
    fs, root = fsspec.core.url_to_fs(f"{state_uri.rstrip('/')}/spool")
    fs.invalidate_cache()
    for place in fs.find(root):
        file = spool / str(place)[len(str(root)) :].lstrip("/")
        if not file.exists():
            with suppress(FileNotFoundError), replacing(file) as temporary:  # another pod has sent it meanwhile
                fs.get_file(place, str(temporary))


def drop_copy(folder: Path, state_uri: str) -> None:
    """Remove a folder's copy in a state elsewhere as far as it is what is here: that was sent."""
    fs, root = fsspec.core.url_to_fs(f"{state_uri.rstrip('/')}/spool/{folder.name}")
    fs.invalidate_cache()
    notes = []
    for place in fs.find(root):
        file = folder / str(place)[len(str(root)) :].lstrip("/")
        with suppress(FileNotFoundError):
            if file.name in (TARGET_FILE, SENT_FILE):
                notes.append(place)
            elif file.read_bytes() == fs.cat_file(place):
                fs.rm_file(place)
    fs.invalidate_cache()
    if set(fs.find(root)) <= set(notes):  # of no use without the rest
        for place in notes:
            with suppress(FileNotFoundError):
                fs.rm_file(place)


def forget(folder: Path) -> None:
    """Remove the folder of a run: all of it was sent."""
    shutil.rmtree(folder, ignore_errors=True)
