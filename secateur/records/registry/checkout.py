"""Checking a version out: the pruned data set as files that other programs read."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from secateur.dataset.table import ImageTable, open_table
from secateur.errors import InputError, require_choice
from secateur.files import replacing, write_json
from secateur.pruning.mask import MASK_FILE, Mask, read_mask, write_mask
from secateur.records.registry import formats
from secateur.records.registry.catalogue import all_versions, fetch, find
from secateur.records.registry.repository import absolute, opened
from secateur.records.registry.store import Store, open_store
from secateur.records.registry.tables import INDEX_FILE, TABLE
from secateur.records.registry.withdrawal import among, read_withdrawn

log = logging.getLogger(__name__)

WITHDRAWN = "withdrawn"  # a reason that only a mask read from a registry has
CHECKOUT_FILE = "checkout.json"
KINDS = ("ids", *formats.WRITERS)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Opened:
    """One version of a registry that is open for reading."""

    tree: Path
    store: Store
    facts: dict[str, Any]  # version.json
    withdrawn: frozenset[str]  # pictures

    def published_mask(self) -> Mask:
        """The mask, checked, as it was published.

        Raises:
            InputError: It is not there, or another one.
        """
        mask = read_mask(fetch(self.store, self.tree, self.facts, MASK_FILE))
        if mask.digest != self.facts["mask_digest"]:
            raise InputError(f"mask digest must be {self.facts['mask_digest'][:12]}, got {mask.digest[:12]}")
        return mask

    def mask(self) -> Mask:
        """The same without what was withdrawn since."""
        mask = self.published_mask()
        out_N = np.array(among(mask.sample_id.tolist(), self.withdrawn), dtype=bool)
        return replace(mask, kept=mask.kept & ~out_N, reason=np.where(out_N, WITHDRAWN, mask.reason).astype(object))

    def table(self, given: str | Path | None = None) -> ImageTable:
        """The data set, checked.

        Args:
            given: A table on this machine, instead of the registry's.

        Raises:
            InputError: It is not there, or another one.
        """
        table = open_table(given or fetch(self.store, self.tree, self.facts, TABLE))
        table.check_digest(self.facts["dataset"]["digest"], "version")
        return table

    def labels(self) -> dict[str, int]:
        """The given label of every sample."""
        index = pq.read_table(fetch(self.store, self.tree, self.facts, INDEX_FILE), columns=["sample_id", "label"])
        return dict(zip(index["sample_id"].to_pylist(), index["label"].to_pylist(), strict=True))


@contextmanager
def open_version(registry: str, name: str, moved_store: str | None = None) -> Iterator[Opened]:
    """Open a version for reading; see `open_versions`."""
    with open_versions(registry, [name], moved_store) as (version,):
        yield version


@contextmanager
def open_versions(
    registry: str, names: Sequence[str] = (), moved_store: str | None = None
) -> Iterator[tuple[Opened, ...]]:
    """Open versions for reading.

    Args:
        registry: Path or URL.
        names: Of the versions; none for all that there are.
        moved_store: Where the store is now, if not where the registry says.

    Raises:
        InputError: There is no such registry, version or store.
    """
    location = absolute(registry)
    with opened(location) as tree:
        found = [find(tree, name) for name in names] or all_versions(tree)
        with open_store(tree, location, moved_store) as store:
            withdrawn = read_withdrawn(tree)
            yield tuple(Opened(tree, store, facts, withdrawn) for facts in found)


def check_out(
    version: Opened,
    folder: str | Path,
    kind: str,
    splits: Sequence[str] = ("train",),
    table_folder: str | Path | None = None,
) -> dict[str, Any]:
    """Write the pruned data set of a version into a folder.

    Args:
        version: What `open_version` gave.
        folder: A new or an empty one.
        kind: One of `KINDS`.
        splits: What to write: the kept training samples, and other splits as they are.
        table_folder: A table on this machine, instead of the registry's.

    Returns:
        What `checkout.json` in the folder says.

    Raises:
        InputError: The folder holds something, or the version's data cannot be had.
    """
    check_request(folder, kind, splits)
    folder = Path(folder).resolve()
    mask, name = version.mask(), version.facts["version"]
    counts = {"withdrawn": int((mask.reason == WITHDRAWN).sum())}
    says = {"version": name, "mask_digest": version.facts["mask_digest"], "dataset": version.facts["dataset"]}
    with replacing(folder) as temporary:
        temporary.mkdir()
        if kind == "ids":
            counts["train"] = formats.write_ids(temporary, mask)
        else:
            table = version.table(table_folder)
            rows_N = chosen(table, mask, version.withdrawn, splits)
            counts |= {split: int((table.split[rows_N] == split).sum()) for split in splits}
            formats.WRITERS[kind](temporary, table, rows_N)
        if kind == "torch":
            write_mask(temporary, mask)
        write_json(temporary / CHECKOUT_FILE, says | {"as": kind, "counts": counts})
    log.info("%s: %s", name, ", ".join(f"{count} {what}" for what, count in counts.items()))
    return says | {"as": kind, "counts": counts}


def check_request(folder: str | Path, kind: str, splits: Sequence[str]) -> None:
    """Check what a checkout is asked for, before any work.

    Raises:
        InputError: An unknown kind or split, ids of more than the mask, or a folder that holds something.
    """
    require_choice("as", kind, KINDS)
    for split in splits:
        require_choice("splits", split, SPLITS)
    if not splits or (kind == "ids" and list(splits) != ["train"]):
        raise InputError(f"splits must be train for ids, else one or more, got {','.join(splits)!r}")
    path = Path(folder).resolve()
    if path.is_mount():
        raise InputError(f"DIR must be a folder that can be replaced, got the mount point {str(folder)!r}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"DIR must be a new or an empty folder, got {str(folder)!r}")


def chosen(table: ImageTable, mask: Mask, withdrawn: frozenset[str], splits: Sequence[str]) -> formats.Rows:
    """The rows to write: kept by the mask where it says something, not withdrawn, of the wanted splits."""
    kept = dict(zip(mask.sample_id.tolist(), mask.kept.tolist(), strict=True))
    ids = table.sample_id.tolist()
    out_N = np.array(among(ids, withdrawn), dtype=bool)
    kept_N = np.array([kept.get(sample_id, True) for sample_id in ids], dtype=bool)
    return np.flatnonzero(kept_N & ~out_N & np.isin(table.split.astype(str), list(splits)))
