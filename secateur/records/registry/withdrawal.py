"""Withdrawn samples: pictures that a person does not want to be used any more.

Nothing published is changed; `withdrawn.json` in the registry lists them, and whatever is checked out later goes
without. The first file of the kind wins: a sample is withdrawn once.
"""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.pruning.mask import MASK_FILE
from secateur.records.registry.catalogue import all_versions, fetch
from secateur.records.registry.repository import absolute, commit, opened, settle
from secateur.records.registry.store import Store, open_store
from secateur.records.registry.tables import INDEX_FILE

log = logging.getLogger(__name__)

FILE = "withdrawn.json"
COPY = re.compile(r"([0-9a-f]{32})-\d+")  # the id of a picture that is, byte for byte, in the data set already


@dataclass(frozen=True)
class Held:
    """A version that held a withdrawn picture."""

    version: str
    sample_id: str
    role: str  # "kept" or "dropped" in the mask, or the name of another split
    epochs: int  # in which the network was trained on it
    model: str  # MLflow URI of the network
    run_id: str  # of MLflow


def picture(sample_id: str) -> str:
    """The picture behind an id; exact copies are one picture.

    >>> picture("0123456789abcdef0123456789abcdef-2")
    '0123456789abcdef0123456789abcdef'
    """
    copy = COPY.fullmatch(sample_id)
    return copy[1] if copy else sample_id


def read_withdrawn(tree: Path) -> frozenset[str]:
    """The withdrawn pictures."""
    return frozenset(entry["picture"] for entry in entries(tree))


def entries(tree: Path) -> list[dict[str, str]]:
    """What `withdrawn.json` says."""
    file = tree / FILE
    return list(read_json(file)) if file.is_file() else []


def among(sample_ids: Iterable[str], withdrawn: Collection[str]) -> list[bool]:
    """Whether each sample is withdrawn."""
    return [picture(sample_id) in withdrawn for sample_id in sample_ids]


def withdraw(location: str, sample_id: str, reason: str = "", moved_store: str | None = None) -> list[Held]:
    """Withdraw a picture, with all its exact copies, from every later checkout.

    A version that cannot be read holds nothing up: a warning names it.

    Args:
        location: Of the registry.
        sample_id: The picture's.
        reason: For whoever reads the list.
        moved_store: Where the store is now, if not where the registry says.

    Returns:
        The versions that are known to have held it; their networks have seen it.

    Raises:
        InputError: No version holds such a picture, or the registry cannot be used.
    """
    location, wanted = absolute(location), picture(sample_id)
    held: list[Held] = []
    unread = []
    with opened(location) as tree:
        with open_store(tree, location, moved_store) as store:
            for facts in all_versions(tree):
                try:
                    held += find_holders(store, tree, facts, wanted)
                except InputError:
                    unread.append(facts["version"])
        if unread:
            log.warning("these versions could not be read and may hold it: %s", ", ".join(unread))
        elif not held:
            raise InputError(f"sample id must be one that a version of the registry holds, got {sample_id!r}")

        def change() -> tuple[None, Sequence[str]]:
            known = entries(tree)
            if wanted not in {entry["picture"] for entry in known}:
                added = [*known, {"picture": wanted, "reason": reason}]
                write_json(tree / FILE, sorted(added, key=lambda entry: entry["picture"]))
                commit(tree, f"Withdraw {wanted}")
            return None, ()

        settle(tree, location, change)
    return held


def find_holders(store: Store, tree: Path, facts: dict[str, Any], wanted: str) -> list[Held]:
    """Where a version holds a picture: in its mask, or else in another split of its data set."""
    name, mlflow = facts["version"], facts["mlflow"]
    mask = pq.read_table(fetch(store, tree, facts, MASK_FILE), columns=["sample_id", "kept", "epochs_used"]).to_pylist()
    found = {
        row["sample_id"]: ("kept" if row["kept"] else "dropped", row["epochs_used"])
        for row in mask
        if picture(row["sample_id"]) == wanted
    }
    index = pq.read_table(fetch(store, tree, facts, INDEX_FILE), columns=["sample_id", "split"]).to_pylist()
    for row in index:
        if picture(row["sample_id"]) == wanted:
            found.setdefault(row["sample_id"], (row["split"], 0))
    return [
        Held(name, sample_id, role, epochs, mlflow["model_uri"], mlflow["run_id"])
        for sample_id, (role, epochs) in found.items()
    ]
