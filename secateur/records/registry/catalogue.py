"""What a registry holds: its versions, found by name, and their files out of the store."""

import difflib
import re
import shutil
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.registry.store import SUFFIX, Pointer, Store
from secateur.records.registry.tables import INDEX_FILE, TABLE, table_path
from secateur.records.registry.versions import MASKS, VERSION_FILE

FETCHED = "fetched"  # folder beside the tree
SCHEMA_VERSION = 2  # of version.json


def all_versions(tree: Path) -> list[dict[str, Any]]:
    """What `version.json` says, of every version; by data set, method and number.

    Args:
        tree: What `registry.opened` gave.

    Raises:
        InputError: One is of another schema.
    """
    return [read_facts(file) for file in sorted((tree / MASKS).glob(f"*/*/v*/{VERSION_FILE}"), key=by_number)]


def by_number(file: Path) -> list[str | int]:
    """Sort v10 behind v9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.parent.as_posix())]


def read_facts(file: Path) -> dict[str, Any]:
    """Read a `version.json`."""
    facts: dict[str, Any] = read_json(file)
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"version schema must be {SCHEMA_VERSION}, got {facts.get('schema_version')} in {facts.get('version')}"
        )
    return facts


def find(tree: Path, name: str) -> dict[str, Any]:
    """What `version.json` says of one version.

    Args:
        tree: What `registry.opened` gave.
        name: Its tag.

    Raises:
        InputError: There is no such version; the message names those that are called much the same.
    """
    known = [facts["version"] for facts in all_versions(tree)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.3) or known[-3:]
        raise InputError(f"version must be one of the registry, such as {', '.join(near) or 'none yet'}, got {name!r}")
    return read_facts(tree / MASKS / name / VERSION_FILE)


def pointer(tree: Path, facts: dict[str, Any], part: str) -> Pointer | None:
    """The pointer to a part of a version, or of its data set; None where that was not stored.

    Args:
        tree: What `registry.opened` gave.
        facts: What `find` gave.
        part: File name, or `TABLE`.
    """
    shared = part in (INDEX_FILE, TABLE)
    folder = table_path(facts["dataset"]["digest"]) if shared else f"{MASKS}/{facts['version']}"
    file = tree / folder / f"{part}{SUFFIX}"
    return Pointer.read(file) if file.exists() or not shared else None


def fetch(store: Store, tree: Path, facts: dict[str, Any], part: str) -> Path:
    """Bring a part of a version here, beside the tree; once.

    Raises:
        InputError: It was not stored, is not there any more, or is damaged.
    """
    wanted = pointer(tree, facts, part)
    if wanted is None:
        digest = facts["dataset"]["digest"]
        raise InputError(f"table must be given, as the registry does not hold that of data set {digest[:12]}, got none")
    path = tree.parent / FETCHED / wanted.md5 / part
    return path if path.exists() else store.get(wanted, path)


def forget(tree: Path) -> None:
    """Remove what was fetched, which may be large."""
    shutil.rmtree(tree.parent / FETCHED, ignore_errors=True)
