"""A place that all steps of a cluster see, where the shards of tables lie once, instead of moving from step to step.

`SECATEUR_DATA` names it: a folder, such as a mounted volume, whose shards are memory-mapped where they are; or an
fsspec URL, from which each machine fetches the shards that it opens, once. The table that `ingest` hands on is then
its `dataset.json` only.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DATA_VARIABLE = "SECATEUR_DATA"
CACHE = "secateur-shards"  # folder for what was fetched, among the temporary ones


def share(folder: str | Path, digest: str, shards: Sequence[str]) -> None:
    """Move the shards of a table to the shared place, if there is one; a shard is there whole or not at all.

    Args:
        folder: Of the table.
        digest: Of the table.
        shards: File names.
    """
    place = os.environ.get(DATA_VARIABLE)
    if not place:
        return
    import fsspec

    fs, root = fsspec.core.url_to_fs(f"{place}/{digest}")
    fs.makedirs(root, exist_ok=True)
    for name in shards:
        shard, target = Path(folder) / name, f"{root}/{name}"
        if not fs.exists(target) or fs.size(target) != shard.stat().st_size:
            temporary = f"{root}/.{name}.{uuid.uuid4().hex}.tmp"
            fs.put_file(str(shard), temporary)
            fs.mv(temporary, target)
        shard.unlink()


def shard_path(folder: Path, digest: str, name: str) -> Path:
    """Where a shard lies: in the folder of its table, or in the shared place."""
    place = os.environ.get(DATA_VARIABLE)
    if not place or (folder / name).exists():
        return folder / name
    url = f"{place}/{digest}/{name}"
    if "://" not in place:
        return Path(url)
    import fsspec

    cache = Path(tempfile.gettempdir(), CACHE, digest)
    return Path(fsspec.open_local(f"simplecache::{url}", simplecache={"cache_storage": str(cache), "same_names": True}))


@contextmanager
def complete(folder: str | Path, digest: str, shards: Sequence[str]) -> Iterator[Path]:
    """The folder of a table with all its shards in it, for those who want to store it."""
    folder = Path(folder)
    if all((folder / name).exists() for name in shards):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="secateur-table-") as temporary:
        whole = Path(temporary) / folder.name
        shutil.copytree(folder, whole)
        for name in shards:
            (whole / name).symlink_to(shard_path(folder, digest, name).absolute())
        yield whole
