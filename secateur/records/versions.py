"""Published masks: versions in the registry.

    masks/<data set>/<method>-<keep>/v<N>/mask.parquet.dvc, trajectory.parquet.dvc    pointers to the mask
    masks/<data set>/<method>-<keep>/v<N>/version.json                                what it is and where it came from

A version is one commit and one annotated tag `<data set>/<method>-<keep>/v<N>`, pushed together; nothing published is
ever changed.
"""

import logging
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.pruning.mask import MASK_FILE, TRAJECTORY_FILE
from secateur.records.git import GitError, author, git, is_url, without_credentials
from secateur.records.registry import clone, commit, require, unusable

log = logging.getLogger(__name__)

MASKS = "masks"  # a top folder, so that no path is ambiguous with a tag
VERSION_FILE = "version.json"
ATTEMPTS = 10


@dataclass(frozen=True)
class Version:
    """A published mask."""

    name: str  # its tag, such as digits/multimodal-0.7/v1
    mask_digest: str
    created: bool  # False: the same mask had this version already


def version_line(dataset: str, method: str, keep: float) -> str:
    """What versions are counted under.

    >>> version_line("my photos: cats", "multimodal", 0.7)
    'my-photos-cats/multimodal-0.7'
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "-", dataset).strip("-") or "data"
    return f"{name}/{method}-{keep:g}"


def publish_mask(location: str, mask_folder: str | Path, line: str, facts: Mapping[str, Any]) -> Version:
    """Publish a mask as the next version of its line, or find the version that it has.

    The data go first, then commit and tag in one push. Where somebody else pushed in between, the version is made
    again on top of theirs, under the next number.

    Args:
        location: What `open_or_create` gave.
        mask_folder: Holds `mask.parquet` and `trajectory.parquet`.
        line: What `version_line` gave.
        facts: What `version.json` says beside the version; with `mask_digest`.

    Raises:
        InputError: The registry or its store cannot be used.
    """
    with clone(location) as tree:
        configured = (tree / ".dvc" / "config").is_file()
        require(configured, f"registry must hold a DVC configuration, got none in {without_credentials(location)!r}")
        for _ in range(ATTEMPTS):
            known = find_version(tree, line, facts["mask_digest"])
            if known is not None:
                return Version(known, facts["mask_digest"], created=False)
            name = f"{line}/v{next_number(tree, line)}"
            folder = write_version(tree, Path(mask_folder), name, facts)
            try:
                push(tree, name)
            except GitError as error:
                shutil.rmtree(folder)  # what git ignores there would outlive the reset
                if not refresh(tree) and "lock" not in str(error):
                    raise unusable(location, error) from error
                log.info("somebody else is publishing too; making %s again on top of theirs", line)
                time.sleep(0.1)
                continue
            log.info("published %s", name)
            return Version(name, facts["mask_digest"], created=True)
    place = without_credentials(location)
    raise InputError(f"registry must hold still for a moment, got {ATTEMPTS} pushes by others in {place!r}")


def find_version(tree: Path, line: str, mask_digest: str) -> str | None:
    """The version of a line that holds this very mask."""
    for file in (tree / MASKS / line).glob(f"v*/{VERSION_FILE}"):
        if read_json(file)["mask_digest"] == mask_digest:
            return f"{line}/{file.parent.name}"
    return None


def next_number(tree: Path, line: str) -> int:
    """One more than the highest number of the line."""
    names = [folder.name for folder in (tree / MASKS / line).glob("v*")]
    return 1 + max((int(name[1:]) for name in names if name[1:].isdecimal()), default=0)


def write_version(tree: Path, mask_folder: Path, name: str, facts: Mapping[str, Any]) -> Path:
    """Add a version to the working tree and its data to the store, and commit and tag it."""
    folder = tree / MASKS / name
    folder.mkdir(parents=True)
    files = [folder / MASK_FILE, folder / TRAJECTORY_FILE]
    for file in files:
        shutil.copyfile(mask_folder / file.name, file)
    store_data(tree, files)
    write_json(folder / VERSION_FILE, {"version": name, **facts})
    commit(tree, f"Publish {name}")
    git(*author(tree), "tag", "--annotate", f"--message=mask {facts['mask_digest']}", name, folder=tree)
    return folder


def store_data(tree: Path, files: list[Path]) -> None:
    """Write pointers to files, and push the files themselves to the DVC remote."""
    from dvc.exceptions import DvcException

    from secateur.records.dvc_repo import open_repo

    with open_repo(tree, scratch=tree.parent / "dvc") as repo:
        remote = repo.config["core"].get("remote")
        require(remote in repo.config["remote"], "registry must name a DVC remote, got none in its .dvc/config")
        url = without_credentials(str(repo.config["remote"][remote]["url"]))
        # DVC would make the folder anew, and older versions would seem to have lost their data.
        require(is_url(url) or Path(url).is_dir(), f"store must be the folder that the registry names, got no {url!r}")
        try:
            repo.add([str(file) for file in files])
            repo.push(targets=[f"{file}.dvc" for file in files])
        except (DvcException, OSError) as error:
            raise InputError(f"store must take the data of a mask, got {url!r}: {error}") from error


def push(tree: Path, name: str) -> None:
    """Push the new commit and its tag, both or none."""
    git("push", "--quiet", "--atomic", "origin", "HEAD", f"refs/tags/{name}", folder=tree)


def refresh(tree: Path) -> bool:
    """Go back to what the registry holds now, without the tags made here; whether that is anything new."""
    before = git("rev-parse", "@{upstream}", folder=tree)
    tags = git("tag", "--points-at", "HEAD", folder=tree).split()
    if tags:
        git("tag", "--delete", *tags, folder=tree)
    git("fetch", "--quiet", "--no-tags", "origin", folder=tree)
    git("reset", "--quiet", "--hard", "@{upstream}", folder=tree)
    return git("rev-parse", "HEAD", folder=tree) != before
