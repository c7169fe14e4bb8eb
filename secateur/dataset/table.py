"""The data-set table: Arrow shards with one row per picture, and `dataset.json` beside them.

A table never changes once it is written. Its digest covers the ids, labels and splits of all rows in their order, and
the class names; since an id is a hash of the picture, the digest covers the pictures too.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secateur.errors import InputError
from secateur.files import read_json, replacing, write_json
from secateur.streams import Keys, sample_keys

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test", "reference")
INFO_FILE = "dataset.json"
BATCH_ROWS = 4096

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One picture on its way into a table."""

    image: bytes  # the encoded picture, as it came
    label: int  # index into the class names; may be wrong
    split: str  # one of SPLITS
    source: str  # where it came from, for a person
    caption: str | None = None  # a text that is known to be true of the picture, in the reference split


@dataclass(frozen=True)
class TableInfo:
    """What `dataset.json` says."""

    name: str
    classes: tuple[str, ...]
    digest: str  # SHA-256 over ids, labels, splits and class names
    shards: tuple[str, ...]  # file names, in the order of the rows
    counts: dict[str, int]  # pictures per split
    schema_version: int = SCHEMA_VERSION
    unreadable: tuple[str, ...] = ()  # sources of pictures set aside because they do not decode
    prompts: tuple[str, ...] = field(default=("a photo of a {}.",))  # texts about a class, for CLIP


def image_ids(images: Iterable[bytes]) -> list[str]:
    """Name pictures by the hash of their bytes; the second of two equal ones gets "-1", the third "-2"."""
    seen: Counter[str] = Counter()
    ids = []
    for image in images:
        digest = hashlib.sha256(image).hexdigest()[:32]
        ids.append(f"{digest}-{seen[digest]}" if seen[digest] else digest)
        seen[digest] += 1
    return ids


def table_digest(
    sample_ids: Sequence[str], labels: Sequence[int], splits: Sequence[str], classes: Sequence[str]
) -> str:
    """SHA-256 over everything that makes two tables the same data set."""
    digest = hashlib.sha256(f"secateur table {SCHEMA_VERSION}\n{list(classes)!r}\n".encode())
    for sample_id, label, split in zip(sample_ids, labels, splits, strict=True):
        digest.update(f"{sample_id}\t{label}\t{split}\n".encode())
    return digest.hexdigest()


def check_labels(label_N: npt.NDArray[np.int32], split_N: npt.NDArray[np.object_], classes: Sequence[str]) -> None:
    """Check that labels are classes, and that every class can be learned.

    Raises:
        InputError: A label outside the classes, doubled class names, or a class with no training sample.
    """
    if len(set(classes)) != len(classes):
        doubled = next(c for c, n in Counter(classes).items() if n > 1)
        raise InputError(f"class names must differ, got {doubled!r} twice")
    outside = np.flatnonzero((label_N < 0) | (label_N >= len(classes)))
    if len(outside):
        raise InputError(
            f"label must be in [0, {len(classes) - 1}] for {len(classes)} classes, got {label_N[outside[0]]} "
            f"in row {outside[0]}"
        )
    train_counts = np.bincount(label_N[split_N == "train"], minlength=len(classes))
    if not train_counts.all():
        empty = classes[int(np.flatnonzero(train_counts == 0)[0])]
        raise InputError(f"every class must have a training sample, got none for class {empty!r}")


def write_table(
    folder: str | Path,
    rows: Sequence[Row],
    *,
    name: str,
    classes: Sequence[str],
    prompts: Sequence[str] | None = None,
    unreadable: Sequence[str] = (),
    shards: int = 1,
) -> TableInfo:
    """Write a table; the same rows give the same bytes.

    Args:
        folder: Where; replaced as a whole if it is there.
        rows: All pictures, in the order that they keep.
        name: What people call the data set.
        classes: Class names; a label is an index into them.
        prompts: Texts with one `{}` for the class name, for CLIP.
        unreadable: Sources of pictures that were set aside.
        shards: Number of files to cut the rows into.

    Raises:
        InputError: See `check_labels`.
    """
    label_N = np.array([row.label for row in rows], dtype=np.int32)
    split_N = np.array([row.split for row in rows], dtype=object)
    check_labels(label_N, split_N, classes)
    ids = image_ids(row.image for row in rows)
    counts = Counter(str(s) for s in split_N)
    info = TableInfo(
        name=name,
        classes=tuple(classes),
        digest=table_digest(ids, label_N.tolist(), split_N.tolist(), classes),
        shards=tuple(f"shard-{s:05d}-of-{shards:05d}.arrow" for s in range(shards)),
        counts={split: counts[split] for split in SPLITS},
        unreadable=tuple(unreadable),
        prompts=tuple(prompts or TableInfo.prompts),
    )
    table = pa.table(
        {
            "sample_id": ids,
            "image": [row.image for row in rows],
            "label": label_N,
            "split": split_N.tolist(),
            "source": [row.source for row in rows],
            "caption": [row.caption for row in rows],
        },
        schema=SCHEMA,
    )
    bounds = np.linspace(0, len(rows), shards + 1).astype(int)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for shard, start, stop in zip(info.shards, bounds[:-1], bounds[1:], strict=True):
            with pa.OSFile(str(temporary / shard), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                writer.write_table(table.slice(start, stop - start), max_chunksize=BATCH_ROWS)
        write_json(temporary / INFO_FILE, asdict(info))
    return info


class ImageTable:
    """A table opened for reading, memory-mapped, whole or a part of its rows.

    Attributes:
        info: What `dataset.json` says; the digest is the whole table's, also for a part.
        sample_id: Ids, object (N,).
        label: Given labels, int32 (N,).
        split: Split names, object (N,).
    """

    def __init__(self, info: TableInfo, rows: pa.Table, origin: tuple[Path, str | None, str | None]) -> None:
        self.info = info
        self._rows = rows
        self._origin = origin  # folder, shard, split
        self.sample_id: npt.NDArray[np.object_] = rows["sample_id"].to_numpy()
        self.label: npt.NDArray[np.int32] = rows["label"].to_numpy()
        self.split: npt.NDArray[np.object_] = rows["split"].to_numpy()

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @cached_property
    def key(self) -> Keys:
        """Random-stream keys of the ids, uint64 (N,)."""
        return sample_keys(self.sample_id.tolist())

    def image(self, index: int) -> bytes:
        """The encoded picture of a row."""
        return bytes(self._rows["image"][index].as_buffer())

    def source(self, index: int) -> str:
        """Where the picture of a row came from."""
        return str(self._rows["source"][index])

    def captions(self) -> list[str]:
        """The captions of all rows; empty texts where there is none."""
        return [c or "" for c in self._rows["caption"].to_pylist()]

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
        return ImageTable(self.info, self._rows.filter(pa.array(self.split == split)), (*self._origin[:2], split))

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
            pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()
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
