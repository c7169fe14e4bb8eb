"""Results that are made once, kept where they outlive the step, each under a name for all that it depends on."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from secateur.errors import InputError

STATE_VARIABLE = "SECATEUR_STATE_URI"


def content_key(**identity: Any) -> str:
    """Name a result by all that it depends on; JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def note_use(fs: Any, path: str) -> None:
    """Set the time of a file on this machine, as far as one may."""
    if isinstance(fs, LocalFileSystem):
        with suppress(OSError):
            os.utime(path)


class DurableState:
    """Files under the place that the environment variable SECATEUR_STATE_URI names, or else beside a step's output.

    Reading a file that lies in a folder of this machine sets its time, by which `secateur clean` knows what is used.
    """

    def __init__(self, output: str | Path) -> None:
        """Find the place.

        Args:
            output: Where the step writes.
        """
        self.uri = os.environ.get(STATE_VARIABLE) or str(Path(output).absolute().parent / "state")

    def fetch(self, name: str, folder: Path, files: tuple[str, ...]) -> bool:
        """Copy a result into a folder, which is made; False where there is none.

        Args:
            name: What the result was kept as.
            folder: Where to.
            files: Its files, in the order in which they were kept.
        """
        fs, root = self._open(name)
        if not fs.exists(f"{root}/{files[-1]}"):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            fs.get_file(f"{root}/{file}", str(folder / file))
            note_use(fs, f"{root}/{file}")
        return True

    def keep(self, name: str, folder: Path, files: tuple[str, ...]) -> None:
        """Copy a result out of a folder; it is there for others once its last file is.

        Raises:
            InputError: The place cannot be written.
        """
        for file in files:
            self._put(f"{name}/{file}", lambda fs, place, file=file: fs.put_file(str(folder / file), place))

    def read(self, name: str) -> bytes | None:
        """The contents of a file, or None where there is none."""
        fs, path = self._open(name)
        if not fs.exists(path):
            return None
        note_use(fs, path)
        return bytes(fs.cat_file(path))

    def write(self, name: str, content: bytes) -> None:
        """Write a file over the one before; a reader sees the old one or the new one.

        Raises:
            InputError: The place cannot be written.
        """
        self._put(name, lambda fs, place: fs.pipe_file(place, content))

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none where there is no such folder."""
        fs, path = self._open(folder)
        fs.invalidate_cache()  # other processes write there too
        if not fs.exists(path):
            return []
        return sorted(str(file).rpartition("/")[2] for file in fs.ls(path, detail=False))

    def remove(self, name: str) -> None:
        """Remove a result, or nothing where there is none."""
        fs, path = self._open(name)
        if fs.exists(path):
            fs.rm(path, recursive=True)

    def _put(self, name: str, fill: Callable[..., None]) -> None:
        """Let a temporary file be filled, and move it to its place."""
        try:
            fs, path = self._open(name)
            root, _, file = path.rpartition("/")
            temporary = f"{root}/.{file}.{uuid.uuid4().hex}.tmp"
            fs.makedirs(root, exist_ok=True)
            fill(fs, temporary)
            fs.mv(temporary, path)
        except OSError as error:
            raise InputError(f"{STATE_VARIABLE} must name a place to write to, got {self.uri!r}: {error}") from error

    def _open(self, name: str) -> tuple[Any, str]:
        fs, path = fsspec.core.url_to_fs(f"{self.uri.rstrip('/')}/{name}")
        return fs, str(path)
