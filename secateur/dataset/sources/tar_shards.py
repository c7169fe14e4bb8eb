"""WebDataset shards: tar files in which the files of a sample follow each other, with one name up to its first dot."""

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from secateur.dataset.images import EXTENSIONS, UnreadableError
from secateur.dataset.rows import check_classes
from secateur.dataset.sources.location import RANGE, Location, files_of, is_url, public, title_of
from secateur.dataset.sources.source import (
    LABELS,
    MAX_BYTES,
    Picture,
    Source,
    class_name,
    given_label,
    opened,
    printable,
    split_in,
)
from secateur.errors import InputError

CLASSES_FILE = "classnames.txt"  # beside the shards, one name in a line: what the numbers in .cls mean
LABEL_FILES = ("cls", "json", "txt")

Sample = dict[str, bytes]


def read_shards(location: Location) -> Source:
    """Read tar files one after the other, each from its beginning to its end.

    Raises:
        InputError: Class names that cannot be used.
    """
    place = Path(location.place)
    names = () if is_url(location.place) else read_classes(place if place.is_dir() else place.parent)
    check_classes(names)
    title = place.name if place.is_dir() else RANGE.sub("", place.name.split(".tar")[0]).strip("-_") or "shards"
    return Source(printable(title), find_pictures(location, names), names)


def read_classes(folder: Path) -> tuple[str, ...]:
    """The class names beside the shards; empty where there are none."""
    file = folder / CLASSES_FILE
    return tuple(class_name(line) for line in file.read_text("utf-8").splitlines()) if file.is_file() else ()


def find_pictures(location: Location, classes: tuple[str, ...]) -> Iterator[Picture]:
    """The pictures of all shards, in their order; samples without a picture are left out."""
    for file in files_of(location):
        title = title_of(file, location)
        for key, sample in samples(file):
            source = printable(f"{title}/{key}")
            extension = next((e for e in sample if f".{e.rpartition('.')[2]}" in EXTENSIONS), None)
            if extension is not None:
                label = given_label(label_of(sample, source), classes, source)
                load = partial(bounded, sample[extension])
                yield Picture(load, label, split_in(title), f"{source}.{extension}")


def bounded(content: bytes) -> bytes:
    """The bytes of a picture, unless they were left in the shard."""
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"it has more than {MAX_BYTES >> 20} MiB")
    return content


def label_of(sample: Sample, source: str) -> object:
    """The label of a sample: the text of .cls, what .json has under one of `LABELS`, or the text of .txt.

    Raises:
        InputError: JSON that is none.
    """
    for extension in LABEL_FILES:
        text = sample.get(extension, b"").decode("utf-8", "replace").strip()
        if extension == "json" and text:
            try:
                fields = json.loads(text)
            except ValueError as error:
                raise InputError(f"label must be in JSON that can be read, got {error} in {source}.json") from error
            text = next((fields[k] for k in LABELS if k in fields), "") if isinstance(fields, dict) else ""
        if text != "":
            return text
    return None


def samples(place: str) -> Iterator[tuple[str, Sample]]:
    """The samples of a shard, each with its key and its files by their extensions; other than files nothing is read.

    Raises:
        InputError: No tar file, or a part of one.
    """
    try:
        with opened(place) as file, tarfile.open(fileobj=file, mode="r|*") as shard:
            key, sample = "", Sample()
            for member in shard:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                stem, _, extension = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if f"{folder}/{stem}" != key and sample:
                    yield key.lstrip("/"), sample
                    sample = Sample()
                key = f"{folder}/{stem}"
                content = shard.extractfile(member)
                sample[extension.lower()] = content.read(MAX_BYTES + 1) if content else b""
            if sample:
                yield key.lstrip("/"), sample
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"source must be whole tar files, got {public(place)!r}: {error}") from error
