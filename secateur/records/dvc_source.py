"""A data set in a DVC repository at a revision, or behind a `.dvc` pointer: fetched to a folder, and read there."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.dataset import TableInfo, sources
from secateur.dataset.sources import IngestConfig
from secateur.dataset.sources.location import Location, is_repository_url, parse
from secateur.errors import InputError
from secateur.records.git import GitError, git, without_credentials

COMMIT = re.compile(r"[0-9a-f]{40}")


def ingest(config: IngestConfig, table_folder: str | Path, clean_labels_file: str | Path) -> TableInfo:
    """Read a data set into a table, of whatever kind its source is; see `secateur.dataset.sources.ingest`.

    Raises:
        InputError: The source cannot be used; the message says why.
    """
    location = parse(config.source)
    if location.kind != "dvc":
        return sources.ingest(config, table_folder, clean_labels_file)
    with tempfile.TemporaryDirectory(prefix="secateur-dvc-") as scratch:
        found, revision = fetch(location, Path(scratch))
        local = replace(config, source=str(found))
        return sources.ingest(local, table_folder, clean_labels_file, revision=revision)


def fetch(location: Location, folder: Path) -> tuple[Path, str]:
    """Fetch what lies in a DVC repository.

    Args:
        location: Of kind "dvc".
        folder: Where to.

    Returns:
        The file or folder, and the commit that it was fetched at; of a pointer, the hash that it gives.

    Raises:
        InputError: No repository there, no such revision or path, or data that the DVC remote does not have.
    """
    from dvc.exceptions import DvcException
    from dvc.repo.open_repo import clean_repos
    from dvc.scm import SCMError

    from secateur.records.dvc_repo import name_user

    name_user()
    place = without_credentials(location.place)
    try:
        if not location.inside:
            return fetch_pointer(Path(location.place), folder)
        return fetch_revision(location, folder)
    except (DvcException, SCMError, OSError) as error:
        revision = f" at revision {location.revision!r}" if location.revision else ""
        reason = without_credentials(" ".join(str(error).split())) or type(error).__name__
        raise InputError(
            f"source must be data that DVC can fetch, got {location.inside or place!r} of {place!r}{revision}: {reason}"
        ) from error
    finally:
        clean_repos()  # DVC's clones


def fetch_revision(location: Location, folder: Path) -> tuple[Path, str]:
    """Fetch a path of a repository at a revision, from git or from the DVC remote as it comes."""
    from dvc.api import DVCFileSystem

    repository = location.place if is_repository_url(location.place) else str(Path(location.place).absolute())
    filesystem = DVCFileSystem(url=repository, rev=location.revision or "HEAD")
    try:
        commit = str(filesystem.repo.get_rev())
        return copy(filesystem, location.inside.strip("/"), folder), commit
    finally:
        filesystem.close()


def fetch_pointer(pointer: Path, folder: Path) -> tuple[Path, str]:
    """Find what a `.dvc` file points to: what lies beside it, or else a copy out of DVC's cache or remote.

    Raises:
        InputError: What lies beside it is something else.
    """
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

    from secateur.records.dvc_repo import open_repo

    pointer = pointer.absolute()
    root = Repo.find_root(str(pointer.parent))
    with open_repo(root) as repo:
        (stage,) = repo.stage.collect(str(pointer))
        (out,) = stage.outs
        place, wanted = Path(str(out.fs_path)), str(out.hash_info.value)
        if place.exists():
            built = out.get_hash().value
            if built != wanted:
                raise InputError(f"{place.name} must have the DVC hash {wanted} that {pointer.name} says, got {built}")
            return place, wanted
    filesystem = DVCFileSystem(url=root)
    try:
        return copy(filesystem, str(place.relative_to(root)), folder), wanted
    finally:
        filesystem.close()


def copy(filesystem: Any, inside: str, folder: Path) -> Path:
    """Copy a file or folder out of a repository.

    Raises:
        InputError: There is none.
    """
    if not filesystem.exists(inside):
        raise InputError(f"source must name a path in the DVC repository, got {inside!r}, which is not there")
    target = folder / Path(inside).name
    filesystem.get(inside, str(target), recursive=True)
    return target


def pinned(location: Location) -> Location:
    """The same place at the commit that its revision means now; as it is where only a clone could tell.

    Raises:
        InputError: No repository there, or no such revision.
    """
    if not location.inside or COMMIT.fullmatch(location.revision):
        return location
    wanted = location.revision or "HEAD"
    try:
        if not is_repository_url(location.place):
            commit = git("rev-parse", "--verify", "--end-of-options", f"{wanted}^{{commit}}", folder=location.place)
            return replace(location, revision=commit)
        names = [f"refs/heads/{wanted}", f"refs/tags/{wanted}", f"refs/tags/{wanted}^{{}}"]
        lines = git("ls-remote", "--", location.place, *(names if location.revision else ["HEAD"])).splitlines()
    except GitError as error:
        raise InputError(
            f"source must be a DVC repository with revision {wanted!r}, got {without_credentials(location.place)!r}: "
            f"{error}"
        ) from error
    return replace(location, revision=lines[-1].split()[0]) if lines else location
