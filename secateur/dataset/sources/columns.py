"""Tables in CSV, Parquet or Arrow: a column with pictures, paths or URLs, one with labels, perhaps one with splits.

Hugging Face's on-disk formats are among them: pictures as {bytes, path}, class names in the schema's metadata.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.dataset.images import UnreadableError
from secateur.dataset.rows import check_classes
from secateur.dataset.sources.location import Location, files_of, is_url, public, title_of
from secateur.dataset.sources.source import (
    LABELS,
    Picture,
    Source,
    class_name,
    given_label,
    given_split,
    opened,
    printable,
    read_file,
    split_in,
)
from secateur.errors import InputError

PICTURES = ("image", "img", "picture", "path", "image_path", "file", "file_name", "filename", "url", "image_url")
SPLIT = "split"
BATCH_ROWS = 32

Values = tuple[Any, Any, Any]  # picture, label, split


@dataclass(frozen=True)
class Columns:
    """A file that is open."""

    rows: Iterator[Values]
    classes: tuple[str, ...]  # class names, where the file knows them


def read_columns(location: Location) -> Source:
    """Read the files of a table, one after the other.

    Raises:
        InputError: A file without such columns, or files with different classes.
    """
    files = files_of(location)
    with open_columns(files[0]) as first:
        classes = first.classes
    check_classes(classes)
    name = Path(location.place).stem if len(files) == 1 else Path(location.place).name
    return Source(printable(name), find_pictures(location, classes), classes)


def find_pictures(location: Location, classes: tuple[str, ...]) -> Iterator[Picture]:
    """The pictures of all files, in their order."""
    for file in files_of(location):
        title = printable(title_of(file, location))
        with open_columns(file) as columns:
            if columns.classes != classes:
                raise InputError(f"every file must have the same classes, got others in {title!r} than in the first")
            for number, (picture, label, split) in enumerate(columns.rows, 1):
                where = f"row {number} of {title}"
                load, source = loader(picture, base_of(file))
                yield Picture(
                    load,
                    given_label(label, classes, where),
                    given_split(split, where) or split_in(title),
                    source or f"{title}#{number}",
                )


def loader(picture: Any, base: str) -> tuple[Callable[[], bytes], str]:
    """How the bytes of a picture are read, and where from; an empty text where that is the row itself."""
    if isinstance(picture, dict):
        content, path = picture.get("bytes"), printable(picture.get("path") or "")
        return ((lambda: content), path) if content else loader(picture.get("path"), base)
    if isinstance(picture, bytes):
        return (lambda: picture), ""
    if not picture:
        return missing, ""
    place = resolve(picture, base)
    return partial(read_url, place) if is_url(place) else partial(read_file, Path(place)), printable(public(picture))


def missing() -> bytes:
    """Stand in for a picture where there is none."""
    raise UnreadableError("it is missing")


def read_url(url: str) -> bytes:
    """Read the file at a URL."""
    filesystem, path = fsspec.core.url_to_fs(url)
    return bytes(filesystem.cat_file(path))


def base_of(file: str) -> str:
    """The folder that relative paths in a file begin at."""
    return file.rpartition("/")[0] if is_url(file) else str(Path(file).parent)


def resolve(path: str, base: str) -> str:
    """The place that a path or URL in a file means."""
    return path if is_url(path) else f"{base}/{path}" if is_url(base) else str(Path(base, path))


def local_pictures(file: str) -> Iterator[Path]:
    """The pictures on this machine that a file names by their paths."""
    with open_columns(file) as columns:
        for picture, *_ in columns.rows:
            path = picture.get("path") if isinstance(picture, dict) and not picture.get("bytes") else picture
            if isinstance(path, str) and not is_url(place := resolve(path, base_of(file))):
                yield Path(place)


@contextmanager
def open_columns(place: str) -> Iterator[Columns]:
    """Open a file, and find its columns.

    Raises:
        InputError: There are no such columns, or the file is damaged; the latter also while it is read.
    """
    with opened(place) as file:
        try:
            if place.lower().endswith((".csv", ".tsv")):
                # File names need not be UTF-8; their bytes go through as they are.
                with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                    yield open_csv(text, place)
            else:
                yield open_arrow(file, place)
        except (pa.ArrowException, csv.Error, OSError) as error:
            raise InputError(f"source must be a whole file of its kind, got {public(place)!r}: {error}") from error


def open_csv(text: TextIO, place: str) -> Columns:
    """Open a CSV file with a header; a tab stands between the values where the name ends in .tsv."""
    rows = csv.DictReader(text, delimiter="\t" if place.lower().endswith(".tsv") else ",")
    picture, label, split = find_columns(rows.fieldnames or (), place)
    return Columns(((row[picture], row[label], row.get(split)) for row in rows), ())


def open_arrow(file: BinaryIO, place: str) -> Columns:
    """Open a Parquet file, or an Arrow file or stream."""
    batches: Iterable[pa.RecordBatch]
    if place.lower().endswith(".parquet"):
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        names = [name for name in find_columns(schema.names, place) if name]
        batches = parquet.iter_batches(BATCH_ROWS, columns=names)
    else:
        begins = file.read(6)
        file.seek(0)
        reader = pa.ipc.open_file(file) if begins == b"ARROW1" else pa.ipc.open_stream(file)
        schema = reader.schema
        batches = (
            (reader.get_batch(i) for i in range(reader.num_record_batches)) if begins == b"ARROW1" else iter(reader)
        )
    picture, label, split = find_columns(schema.names, place)
    check_type(schema.field(picture), place)
    rows = (
        (row[picture], row[label], row.get(split))
        for batch in batches
        for start in range(0, len(batch), BATCH_ROWS)
        for row in batch.select([n for n in (picture, label, split) if n]).slice(start, BATCH_ROWS).to_pylist()
    )
    return Columns(rows, class_names(schema, label))


def find_columns(names: Sequence[str], place: str) -> tuple[str, str, str]:
    """The columns with pictures, labels and splits; an empty name where there are no splits.

    Raises:
        InputError: None with pictures, or none with labels.
    """
    by_lower = {name.lower(): name for name in names}
    found = []
    for thing, known in (("pictures", PICTURES), ("labels", LABELS)):
        column = next((by_lower[name] for name in known if name in by_lower), None)
        if column is None:
            raise InputError(
                f"source must have a column with {thing} ({', '.join(known)}), got {', '.join(names) or 'none'} "
                f"in {place!r}"
            )
        found.append(column)
    return found[0], found[1], by_lower.get(SPLIT, "")


def check_type(field: pa.Field, place: str) -> None:
    """Check that a column can hold pictures.

    Raises:
        InputError: It holds something else.
    """
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    encoded = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (encoded or any(is_kind(kind) for is_kind in KINDS)):
        raise InputError(
            f"column {field.name} must hold encoded pictures, paths or URLs, got {field.type} in {place!r}"
        )


KINDS = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The class names that Hugging Face keeps beside a column of numbers."""
    kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = kept.get("info", {}).get("features", {}).get(label, {})
    return tuple(class_name(str(name)) for name in feature.get("names") or ())
