"""Vectors that were computed before, by what they are of, in the durable state: nothing is embedded twice.

A cache is a folder of chunks, each two files: vectors, and a list of the ids that they are of. A file is named by the
hash of its bytes, so a damaged one gives itself away, nothing is ever overwritten by something else, and processes that
add to a cache at the same time need not know of each other. The list comes second: a chunk is there once its list is.
Looking for ids reads all lists, 40 bytes for each id, and of the vectors those chunks alone that hold some of them.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.state import DurableState

log = logging.getLogger(__name__)

IDS, VECTORS = ".ids.json", ".npy"

Positions = npt.NDArray[np.int64]


class VectorCache:
    """Vectors by the ids that they are of, in a folder of the durable state."""

    def __init__(self, state: DurableState, folder: str) -> None:
        """Name the folder.

        Args:
            state: Where it is.
            folder: Its name, which stands for all that the vectors depend on beside the ids.
        """
        self.state, self.folder = state, folder

    def keep(self, ids: Sequence[str], vector_BD: npt.NDArray[Any]) -> None:
        """Add a chunk.

        Raises:
            InputError: The state cannot be written.
        """
        content = io.BytesIO()
        np.save(content, vector_BD, allow_pickle=False)
        vectors = self._write(content.getvalue(), VECTORS)
        self._write(json.dumps({"vectors": vectors, "ids": list(ids)}).encode(), IDS)

    def find(self, ids: Sequence[str]) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        """Give what is there of some ids, chunk by chunk: positions among the ids, int64 (B,), and vectors (B, D).

        Each position comes once at most. A chunk that is damaged is named in the log, removed, and passed over.
        """
        lists = [name for name in self.state.names(self.folder) if name.endswith(IDS)]
        place_of = {wanted: place for place, wanted in enumerate(ids)} if lists else {}
        for name in lists:
            content = self._read(name)
            if content is None:
                continue
            chunk = json.loads(content)
            rows = [row for row, known in enumerate(chunk["ids"]) if known in place_of]
            vectors = self._read(chunk["vectors"]) if rows else None
            if vectors is not None:
                position_B = np.array([place_of.pop(chunk["ids"][row]) for row in rows], dtype=np.int64)
                yield position_B, np.load(io.BytesIO(vectors), allow_pickle=False)[rows]
            elif rows:
                self._remove(name)

    def _write(self, content: bytes, ending: str) -> str:
        name = f"{hashlib.sha256(content).hexdigest()[:32]}{ending}"
        self.state.write(f"{self.folder}/{name}", content)
        return name

    def _read(self, name: str) -> bytes | None:
        """The contents of a file if they are what its name says, else None."""
        try:
            content = self.state.read(f"{self.folder}/{name}")
        except FileNotFoundError:  # removed just now by another process, which found it damaged
            content = None
        if content is not None and hashlib.sha256(content).hexdigest()[:32] == name.partition(".")[0]:
            return content
        what = "is not there" if content is None else "is damaged"
        log.warning("%s/%s in the durable state %s: what it held is embedded again", self.folder, name, what)
        self._remove(name)
        return None

    def _remove(self, name: str) -> None:
        with suppress(OSError):  # others may remove it too, and it does no harm where it is
            self.state.remove(f"{self.folder}/{name}")
