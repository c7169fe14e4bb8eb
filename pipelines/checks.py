"""What is checked before any work starts, and a name for the state of the files that a run reads."""

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from secateur.dataset.digits import NAME as DIGITS
from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError
from secateur.pruning.methods import find_method
from secateur.semantics.config import ClipConfig

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


def check_home(folder: Path) -> None:
    """Make the folder that a run writes to, and check that it can.

    Raises:
        InputError: No right to write there, or too little space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"home must be a folder that can be written, got {str(folder)!r}: {error.strerror}") from error
    free = shutil.disk_usage(folder).free // 10**6
    if free < FREE_MB:
        raise InputError(f"home must be on a disk with at least {FREE_MB} MB free, got {free} MB in {str(folder)!r}")


def absolute_source(config: IngestConfig) -> IngestConfig:
    """The same with an absolute path: KFP's cache knows a source by its text."""
    return config if config.source == DIGITS else dataclasses.replace(config, source=str(Path(config.source).resolve()))


def absolute_files(config: ClipConfig) -> ClipConfig:
    """The same with absolute paths.

    Raises:
        InputError: A file is not there.
    """
    return dataclasses.replace(
        config,
        checkpoint=absolute_file("checkpoint", config.checkpoint),
        clip_config=absolute_file("clip_config", config.clip_config),
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
    files = [Path(p) for p in (clip.checkpoint, clip.clip_config) if p]
    if source != DIGITS:
        files += walk(Path(source))
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat() if file.exists() else file.lstat()
        digest.update(f"{file}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, sorted."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(files))
