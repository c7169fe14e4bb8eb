"""What every kind of source gives: pictures one by one, each with the name of its label, and perhaps its split."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from secateur.dataset.images import UnreadableError
from secateur.dataset.sources.location import is_url, public
from secateur.errors import InputError

SPLIT_NAMES = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}  # fmt: skip
LABELS = ("label", "labels", "class", "class_name", "category", "target", "fine_label")  # columns, or keys in JSON
MAX_BYTES = 2**29


@dataclass(frozen=True)
class Picture:
    """A picture that a source offers."""

    load: Callable[[], bytes]  # reads its bytes; called in a thread
    label: str  # the name of its class
    split: str  # one of the values of SPLIT_NAMES; empty where the source does not say
    source: str  # where it came from, for a person


@dataclass(frozen=True)
class Source:
    """A data set that can be read, once."""

    name: str
    pictures: Iterator[Picture]
    classes: tuple[str, ...] = ()  # in the order of their labels; empty: those that occur, sorted


def printable(name: str) -> str:
    r"""A file name as text: bytes in it that are no UTF-8 are written out.

    >>> print(printable("caf\udce9.png"))
    caf\xe9.png
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def class_name(name: str) -> str:
    """A class name in one Unicode form, whatever the file system or editor that it comes from makes of it."""
    return unicodedata.normalize("NFC", printable(name)).strip()


def split_in(path: str) -> str:
    """The split that the name of a file or of a folder above it tells of; empty where none does.

    >>> split_in("data/train-00000-of-00002.parquet"), split_in("pets/test/0000.tar"), split_in("trainers.tar")
    ('train', 'test', '')
    """
    for part in reversed(Path(path).parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return ""


def given_split(value: Any, where: str) -> str:
    """The split that a source names; empty for none.

    Raises:
        InputError: A name that is not known.
    """
    name = str(value or "").strip().lower()
    if name and name not in SPLIT_NAMES:
        raise InputError(f"split must be one of {', '.join(SPLIT_NAMES)}, got {value!r} in {where}")
    return SPLIT_NAMES.get(name, "")


def given_label(value: Any, classes: tuple[str, ...], where: str) -> str:
    """The class name that a label means: an index into the classes, where they are known, or the name itself.

    Raises:
        InputError: There is none, or it is none of the classes.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float | list | dict):
        raise InputError(f"label must be a name or a whole number, got {value!r} in {where}")
    name = "" if value is None else class_name(str(value))
    if not name:
        raise InputError(f"label must be given for every picture, got none in {where}")
    if not classes or name in classes:
        return name
    if name.isdecimal() and int(name) < len(classes):
        return classes[int(name)]
    raise InputError(f"label must be one of the {len(classes)} classes or in [0, {len(classes) - 1}], "
                     f"got {value!r} in {where}")  # fmt: skip


def read_file(path: Path) -> bytes:
    """Read a picture's file.

    Raises:
        UnreadableError: It is larger than any picture.
        OSError: It cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableError(f"it has more than {MAX_BYTES >> 20} MiB")
    return path.read_bytes()


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """Open a file or URL for reading.

    Raises:
        InputError: It cannot be opened.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(place) if is_url(place) else (fsspec.filesystem("file"), place)
        file = filesystem.open(path, "rb")
    except OSError as error:
        raise InputError(f"source must be a file that can be read, got {public(place)!r}: {error}") from error
    with file:
        yield file
