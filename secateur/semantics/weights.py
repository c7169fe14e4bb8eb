"""Where a CLIP's weights are."""

from pathlib import Path

from secateur.errors import InputError
from secateur.semantics.config import ClipConfig

ARRAY_SUFFIXES = (".npy", ".npz")


def find_weights(config: ClipConfig) -> Path:
    """The weights file of a resolved config: the one that it names, or the hub's, downloaded if need be.

    Raises:
        InputError: It is not there, and cannot be had.
    """
    if not config.checkpoint:
        from secateur.semantics.hub import find_pretrained  # takes seconds to import, and files do without it

        return find_pretrained(config.clip, config.pretrained)
    file = Path(config.checkpoint)
    if not file.is_file():
        raise InputError(f"checkpoint must be a file, got {config.checkpoint!r}, which is not there")
    if file.suffix in ARRAY_SUFFIXES:
        raise InputError(f"checkpoint must be safetensors or a plain state dict, got {config.checkpoint!r}")
    return file
