"""Published masks: versions in the registry.

    masks/<data set>/<method>-<keep>/v<N>/mask.parquet.dvc, trajectory.parquet.dvc    pointers to the mask
    masks/<data set>/<method>-<keep>/v<N>/version.json                                what it is and where it came from
    masks/<data set>/<method>-<keep>/v<N>/DATA_CARD.md, MODEL_CARD.md                 the same for people

A version is one commit and one annotated tag `<data set>/<method>-<keep>/v<N>`, pushed together; nothing published is
ever changed.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.files import read_json
from secateur.pruning.mask import MASK_FILE, TRAJECTORY_FILE
from secateur.records.git import author, git
from secateur.records.registry.repository import commit, opened, settle
from secateur.records.registry.store import SUFFIX, open_store
from secateur.records.registry.tables import put_table

log = logging.getLogger(__name__)

MASKS = "masks"  # a top folder, so that no path is ambiguous with a tag
VERSION_FILE = "version.json"
PARTS = (MASK_FILE, TRAJECTORY_FILE)


@dataclass(frozen=True)
class Version:
    """A published mask."""

    name: str  # its tag, such as digits/multimodal-0.7/v1
    mask_digest: str
    created: bool  # False: the same mask had this version already
    says: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # version.json, where it was read


def version_line(dataset: str, method: str, keep: float) -> str:
    """What versions are counted under.

    >>> version_line("my photos: cats", "multimodal", 0.7)
    'my-photos-cats/multimodal-0.7'
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "-", dataset).strip("-") or "data"
    return f"{name}/{method}-{keep:g}"


def publish_mask(
    location: str,
    mask_folder: str | Path,
    line: str,
    facts: Mapping[str, Any],
    *,
    cards: Mapping[str, str] | None = None,
    dataset_folder: str | Path | None = None,
    pictures: bool = True,
) -> Version:
    """Publish a mask as the next version of its line, or find the version that it has.

    The data go first, then commit and tag in one push. Where somebody else pushed in between, the version is made
    again on top of theirs, under the next number.

    Args:
        location: What `open_or_create` gave.
        mask_folder: Holds `mask.parquet` and `trajectory.parquet`.
        line: What `version_line` gave.
        facts: What `version.json` says beside the version; with `mask_digest`.
        cards: Documents for people, by file name; `{version}` in them becomes the version.
        dataset_folder: The table that the mask was made from, stored if it is new; None for no table.
        pictures: Store its pictures too, not only ids, labels, splits and sources.

    Raises:
        InputError: The registry or its store cannot be used.
    """
    digest = facts["mask_digest"]
    with opened(location) as tree:
        known = find_version(tree, line, digest)
        if known is not None:
            return known
        with open_store(tree, location) as store:
            table = put_table(store, tree, Path(dataset_folder), pictures) if dataset_folder else {}
            pointers = {f"{part}{SUFFIX}": store.put(Path(mask_folder) / part, part).text() for part in PARTS}

        def change() -> tuple[Version, Sequence[str]]:
            known = find_version(tree, line, digest)
            if known is not None:
                return known, ()
            name = f"{line}/v{next_number(tree, line)}"
            says = json.dumps({"version": name, **facts}, indent=1, sort_keys=True, allow_nan=False) + "\n"
            files = {**pointers, ".gitignore": "".join(f"/{part}\n" for part in PARTS), VERSION_FILE: says}
            files |= {card: text.replace("{version}", name) for card, text in (cards or {}).items()}
            write_texts(tree, table | {f"{MASKS}/{name}/{file}": text for file, text in files.items()})
            commit(tree, f"Publish {name}")
            git(*author(tree), "tag", "--annotate", f"--message=mask {digest}", name, folder=tree)
            return Version(name, digest, created=True), (name,)

        version = settle(tree, location, change)
    log.info("published %s" if version.created else "%s holds this mask already", version.name)
    return version


def find_version(tree: Path, line: str, mask_digest: str) -> Version | None:
    """The version of a line that holds this very mask."""
    for file in (tree / MASKS / line).glob(f"v*/{VERSION_FILE}"):
        says = read_json(file)
        if says["mask_digest"] == mask_digest:
            return Version(f"{line}/{file.parent.name}", mask_digest, created=False, says=says)
    return None


def next_number(tree: Path, line: str) -> int:
    """One more than the highest number of the line."""
    names = [folder.name for folder in (tree / MASKS / line).glob("v*")]
    return 1 + max((int(name[1:]) for name in names if name[1:].isdecimal()), default=0)


def write_texts(tree: Path, texts: Mapping[str, str]) -> None:
    """Write files that are not there yet."""
    for path, text in texts.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(text)
