"""The state of the files behind a source, without reading the pictures: with another state, it is read anew."""

from collections.abc import Iterator
from pathlib import Path

import fsspec

from secateur.dataset.sources.columns import local_pictures
from secateur.dataset.sources.location import files_of, is_url, parse, public, walk
from secateur.errors import InputError


def states(source: str) -> Iterator[str]:
    """Describe each file of a source: its name with size and time, or what its server says of it.

    Pictures that a table names by their URLs are taken not to change. What has a revision has no files here.

    Raises:
        InputError: A file that is not there.
    """
    location = parse(source)
    if location.kind in ("folder", "table"):
        yield from map(file_state, walk(Path(location.place)))
    elif location.kind == "torchvision":
        yield from map(file_state, walk(Path(location.inside)))
    elif location.kind == "dvc" and not location.inside:
        yield file_state(Path(location.place))
    elif location.kind in ("columns", "shards"):
        for file in files_of(location):
            yield url_state(file) if is_url(file) else file_state(Path(file))
            if location.kind == "columns":
                yield from map(file_state, local_pictures(file))


def file_state(file: Path) -> str:
    """Name, size and time of a file, of a link to nothing those of the link; no more than its name where it is away."""
    try:
        stat = file.stat() if file.exists() else file.lstat()
    except OSError:
        return str(file)
    return f"{file}\t{stat.st_size}\t{stat.st_mtime_ns}"


def url_state(url: str) -> str:
    """What a server says of a file."""
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        return f"{url}\t{filesystem.checksum(path)}"
    except (OSError, NotImplementedError) as error:
        raise InputError(f"source must be a file that can be read, got {public(url)!r}: {error}") from error
