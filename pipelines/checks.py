"""What is checked before any work starts, and a name for the state of the files that a run reads."""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from secateur.dataset.sources import IngestConfig, hub
from secateur.dataset.sources.location import absolute, parse, written
from secateur.dataset.sources.state import file_state, states
from secateur.errors import InputError
from secateur.pruning.methods import find_method
from secateur.records import dvc_source
from secateur.semantics.config import ClipConfig
from secateur.semantics.prompts import read_prompts

FREE_MB = 200


def check_baselines(baselines: Sequence[str]) -> None:
    """Check the methods to compare with.

    Raises:
        InputError: None, one twice, an unknown one, or one that needs CLIP.
    """
    if not baselines or len(set(baselines)) != len(baselines):
        raise InputError(f"baselines must be one or more different methods, got {','.join(baselines) or 'none'}")
    for name in baselines:
        if "semantics" in find_method(name).needs:
            raise InputError(f"baselines must be methods that do without CLIP, got {name!r}")


def check_home(folder: Path, name: str = "home") -> None:
    """Make the folder that a run writes to, and check that it can.

    Args:
        folder: Which.
        name: The option that names it.

    Raises:
        InputError: No right to write there, or too little space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{name} must be a folder that can be written, got {str(folder)!r}: {error.strerror}"
        ) from error
    free = shutil.disk_usage(folder).free // 10**6
    if free < FREE_MB:
        raise InputError(f"{name} must be on a disk with at least {FREE_MB} MB free, got {free} MB in {str(folder)!r}")


def absolute_source(config: IngestConfig) -> IngestConfig:
    """The same with absolute paths, and at a fixed revision: KFP's cache knows a source by its text.

    Raises:
        InputError: A repository or hub that does not answer, or has no such revision.
    """
    location = parse(absolute(config.source))
    if location.kind == "hf":
        location = hub.pinned(location)
    elif location.kind == "dvc" and location.inside:
        location = dvc_source.pinned(location)
    else:
        return dataclasses.replace(config, source=absolute(config.source))
    return dataclasses.replace(config, source=written(location))


def absolute_files(config: ClipConfig) -> ClipConfig:
    """The same with absolute paths.

    Raises:
        InputError: A file is not there, or prompts are wrong.
    """
    read_prompts(config.prompts)
    return dataclasses.replace(
        config,
        checkpoint=absolute_file("checkpoint", config.checkpoint),
        clip_config=absolute_file("clip_config", config.clip_config),
        prompts=absolute_file("prompts", config.prompts),
    )


def absolute_file(name: str, path: str) -> str:
    """The absolute path of a file; an empty one stays empty."""
    if path and not Path(path).is_file():
        raise InputError(f"{name} must be a file, got {path!r}")
    return str(Path(path).resolve()) if path else ""


def snapshot(source: str, clip: ClipConfig) -> str:
    """Name the state of all files that a run reads, by their sizes and times; empty where it reads none.

    KFP's cache sees the names of files only; with this among a step's arguments, changed files are read again.
    """
    described = [file_state(Path(p)) for p in (clip.checkpoint, clip.clip_config, clip.prompts) if p] + list(
        states(source)
    )
    return hashlib.sha256("\n".join(described).encode(errors="surrogateescape")).hexdigest()[:16] if described else ""
