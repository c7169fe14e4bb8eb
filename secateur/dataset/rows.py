"""What a table holds, and what makes two of them the same data set: ids, labels, splits, class names."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secateur.errors import InputError

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test", "reference")
INFO_FILE = "dataset.json"

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
    revision: str = ""  # the commit that it was read at, of a source that has any; left out of the file where empty


def image_hash(image: bytes) -> str:
    """The hash that a picture is named by, 32 hexadecimal digits."""
    return hashlib.sha256(image).hexdigest()[:32]


def image_ids(images: Iterable[bytes]) -> list[str]:
    """Name pictures by the hash of their bytes; see `unique_ids`."""
    return unique_ids(image_hash(image) for image in images)


def unique_ids(hashes: Iterable[str]) -> list[str]:
    """Make ids of hashes: the second of two equal ones gets "-1", the third "-2".

    >>> unique_ids(["a", "b", "a", "a"])
    ['a', 'b', 'a-1', 'a-2']
    """
    seen: Counter[str] = Counter()
    ids = []
    for name in hashes:
        ids.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return ids


def table_digest(
    sample_ids: Sequence[str], labels: Sequence[int], splits: Sequence[str], classes: Sequence[str]
) -> str:
    """SHA-256 over everything that makes two tables the same data set."""
    digest = hashlib.sha256(f"secateur table {SCHEMA_VERSION}\n{list(classes)!r}\n".encode())
    for sample_id, label, split in zip(sample_ids, labels, splits, strict=True):
        digest.update(f"{sample_id}\t{label}\t{split}\n".encode())
    return digest.hexdigest()


def check_classes(classes: Sequence[str]) -> None:
    """Check that class names can be told apart, and say something.

    Raises:
        InputError: One is empty, or there twice, be it in another Unicode form.
    """
    seen: dict[str, str] = {}
    for index, name in enumerate(classes):
        same = unicodedata.normalize("NFKC", name).strip()
        if not same:
            raise InputError(f"class names must not be empty, got {name!r} for label {index}")
        if name == seen.get(same):
            raise InputError(f"class names must differ, got {name!r} twice")
        if same in seen:
            raise InputError(f"class names must differ by more than Unicode form, got {seen[same]!a} and {name!a}")
        seen[same] = name


def check_labels(label_N: npt.NDArray[np.int32], split_N: npt.NDArray[np.object_], classes: Sequence[str]) -> None:
    """Check that labels are classes, and that every class can be learned.

    Raises:
        InputError: A label outside the classes, doubled or empty class names, or a class with no training sample.
    """
    check_classes(classes)
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
