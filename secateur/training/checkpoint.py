"""The state of a run, written so that a killed step goes on where it was, and read without unpickling."""

import io
from pathlib import Path
from typing import Any

import torch

from secateur.errors import InputError
from secateur.pruning.distributed import from_first, place
from secateur.pruning.losses import as_tensors
from secateur.state import DurableState, content_key


def dump(state: dict[str, Any]) -> bytes:
    """A state as bytes."""
    buffer = io.BytesIO()
    torch.save(as_tensors(state), buffer)
    return buffer.getvalue()


def load(content: bytes, name: str) -> dict[str, Any]:
    """A state from bytes.

    Raises:
        InputError: The bytes are damaged, or hold more than tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes make the reader stumble over
        raise InputError(f"checkpoint must be a file that secateur wrote, got {name!r}: {error}") from error
    return state


class CheckpointStore:
    """The checkpoints of one piece of work, in the durable state under a name for all that its result depends on.

    Of several processes the first one reads and writes, and tells the others; `load` is collective.
    """

    def __init__(self, output: str | Path, **identity: Any) -> None:
        """Name the work.

        Args:
            output: Where the step writes.
            **identity: All that the result depends on; JSON values.
        """
        self.state, self.folder = DurableState(output), f"checkpoints/{content_key(**identity)}"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a state over the one before."""
        if place()[0] == 0:
            self.state.write(f"{self.folder}/{name}.pt", dump(state))

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a state, or None where there is none."""
        content = from_first(self.state.read(f"{self.folder}/{name}.pt") if place()[0] == 0 else None)
        return None if content is None else load(content, f"{self.state.uri}/{self.folder}/{name}.pt")

    def clear(self) -> None:
        """Forget the work, which is done."""
        if place()[0] == 0:
            self.state.remove(self.folder)
