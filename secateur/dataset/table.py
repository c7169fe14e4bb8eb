"""The data-set table: Arrow shards with one row per picture, and `dataset.json` beside them.

A table never changes once it is written. Its digest covers the ids, labels and splits of all rows in their order, and
the class names; since an id is a hash of the picture, the digest covers the pictures too.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secateur.dataset.rows import (
    INFO_FILE,
    SCHEMA_VERSION,
    SPLITS,
    Row,
    TableInfo,
    check_labels,
    image_ids,
    table_digest,
)
from secateur.dataset.shared import shard_path
from secateur.dataset.writing import write_table
from secateur.errors import InputError
from secateur.files import read_json
from secateur.streams import Keys, sample_keys

__all__ = ["INFO_FILE", "SPLITS", "ImageTable", "Row", "TableInfo", "image_ids", "open_table", "write_table"]


class ImageTable:
    """A table opened for reading, memory-mapped, whole or a part of its rows.

    Attributes:
        info: What `dataset.json` says; the digest is the whole table's, also for a part.
        sample_id: Ids, object (N,).
        label: Given labels, int32 (N,).
        split: Split names, object (N,).
    """

    def __init__(
        self,
        info: TableInfo,
        rows: pa.Table,
        origin: tuple[Path, str | None, str | None],
        row_N: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.info = info
        self._rows = rows  # all of them: to filter them would copy the pictures into memory
        self._row_N = np.arange(rows.num_rows) if row_N is None else row_N
        self._origin = origin  # folder, shard, split
        described = rows.select(["sample_id", "label", "split"]).take(self._row_N)
        self.sample_id: npt.NDArray[np.object_] = described["sample_id"].to_numpy()
        self.label: npt.NDArray[np.int32] = described["label"].to_numpy()
        self.split: npt.NDArray[np.object_] = described["split"].to_numpy()

    def __len__(self) -> int:
        return len(self._row_N)

    @cached_property
    def key(self) -> Keys:
        """Random-stream keys of the ids, uint64 (N,)."""
        return sample_keys(self.sample_id.tolist())

    def image(self, index: int) -> bytes:
        """The encoded picture of a row."""
        return bytes(self._rows["image"][int(self._row_N[index])].as_buffer())

    def source(self, index: int) -> str:
        """Where the picture of a row came from."""
        return str(self._rows["source"][int(self._row_N[index])])

    def captions(self) -> list[str]:
        """The captions of all rows; empty texts where there is none."""
        return [c or "" for c in self._rows["caption"].take(self._row_N).to_pylist()]

    def check_digest(self, digest: str, name: str) -> None:
        """Check that something was made from this data set.

        Args:
            digest: The data set's, as that thing has it.
            name: What it is, for the message.

        Raises:
            InputError: It was made from another one.
        """
        if digest != self.info.digest:
            raise InputError(f"{name} must be of data set {self.info.digest[:12]}, got {digest[:12]}")

    def part(self, split: str) -> "ImageTable":
        """The rows of one split, in their order."""
        return ImageTable(self.info, self._rows, (*self._origin[:2], split), self._row_N[self.split == split])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to worker processes as a folder to open, not as the pictures."""
        return _reopen, self._origin


def _reopen(folder: Path, shard: str | None, split: str | None) -> ImageTable:
    table = open_table(folder, shard)
    return table if split is None else table.part(split)


def open_table(folder: str | Path, shard: str | None = None) -> ImageTable:
    """Open a table, or one shard of it.

    Args:
        folder: Where `write_table` wrote it.
        shard: A file name out of `dataset.json`, or None for all.

    Raises:
        InputError: No table there, a table of another schema, or contents that do not match their digest.
    """
    folder = Path(folder)
    if not (folder / INFO_FILE).is_file():
        raise InputError(f"data set must be a folder with {INFO_FILE}, got {str(folder)!r}")
    fields: dict[str, Any] = read_json(folder / INFO_FILE)
    if fields.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"data set schema version must be {SCHEMA_VERSION}, got {fields.get('schema_version')}")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    info = TableInfo(**fields)
    if shard is not None and shard not in info.shards:
        raise InputError(f"shard must be one of {', '.join(info.shards)}, got {shard!r}")
    try:
        tables = [
            pa.ipc.open_file(pa.memory_map(str(shard_path(folder, info.digest, name)))).read_all()
            for name in (info.shards if shard is None else [shard])
        ]
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"data set {str(folder)!r} is damaged: {error}") from error
    table = ImageTable(info, pa.concat_tables(tables), (folder, shard, None))
    if shard is None:
        digest = table_digest(table.sample_id.tolist(), table.label.tolist(), table.split.tolist(), info.classes)
        if digest != info.digest:
            raise InputError(f"data set {str(folder)!r} is damaged: its digest must be {info.digest}, got {digest}")
        check_labels(table.label, table.split, info.classes)
    return table
