"""Reading a data set into a table, picture by picture."""

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.dataset import digits
from secateur.dataset.images import UnreadableError, problem
from secateur.dataset.rows import TableInfo, image_ids
from secateur.dataset.shared import share
from secateur.dataset.sources import hub
from secateur.dataset.sources.columns import read_columns
from secateur.dataset.sources.config import IngestConfig
from secateur.dataset.sources.folder import read_folder
from secateur.dataset.sources.location import Location, parse
from secateur.dataset.sources.source import Picture, Source
from secateur.dataset.sources.tar_shards import read_shards
from secateur.dataset.sources.torchvision_sets import read_torchvision
from secateur.dataset.splits import cut_splits
from secateur.dataset.table import open_table
from secateur.dataset.writing import TableWriter, table_writer, write_info, write_table
from secateur.errors import InputError
from secateur.files import replacing

log = logging.getLogger(__name__)

MAX_READERS = 8  # the largest pictures take about half a gigabyte in each
REPORT_SECONDS = 10.0


def ingest(
    config: IngestConfig, table_folder: str | Path, clean_labels_file: str | Path, *, revision: str = ""
) -> TableInfo:
    """Read a data set into a table.

    Args:
        config: What to read.
        table_folder: Where the table is written.
        clean_labels_file: Where the labels known to be true are written, Parquet (sample_id, label): of every picture
            of the digits, of none elsewhere. It is for the evaluation alone.
        revision: The commit that the source was fetched at, for `dataset.json`.

    Raises:
        InputError: The source cannot be used; the message says why.
    """
    location, name = parse(config.source), ""
    if location.kind == "dvc":
        raise InputError(f"source must be fetched from DVC first (secateur.records.dvc_source), got {config.source!r}")
    if location.kind == "hf":
        name = location.place.split("/")[1]
        fetched, revision = hub.fetch(location)
        location = parse(str(fetched))
    known: dict[str, int] = {}
    if location.kind == "digits":
        info, known = ingest_digits(config, table_folder)
    elif location.kind == "table":
        info = copy_table(Path(location.place), table_folder, revision)
    else:
        source = open_source(location)
        info = ingest_pictures(replace(source, name=name or source.name), config, table_folder, revision)
    share(table_folder, info.digest, info.shards)
    write_clean_labels(clean_labels_file, list(known), list(known.values()))
    log.info(
        "data set %s: %s, digest %s", info.name, ", ".join(f"{n} {s}" for s, n in info.counts.items()), info.digest
    )
    return info


def open_source(location: Location) -> Source:
    """Open a source of pictures.

    Raises:
        InputError: It cannot be used.
    """
    if location.kind == "folder":
        return read_folder(Path(location.place))
    readers = {"columns": read_columns, "shards": read_shards, "torchvision": read_torchvision}
    return readers[location.kind](location)


def ingest_digits(config: IngestConfig, table_folder: str | Path) -> tuple[TableInfo, dict[str, int]]:
    """Write the table of the digits, and give the clean label of each."""
    rows, clean = digits.digits_rows(config.split_seed)
    info = write_table(
        table_folder, rows, name=digits.NAME, classes=digits.CLASSES, prompts=digits.PROMPTS, shards=config.shards
    )
    return info, dict(zip(image_ids(row.image for row in rows), clean, strict=True))


def copy_table(folder: Path, table_folder: str | Path, revision: str) -> TableInfo:
    """Take a table as it is."""
    info = open_table(folder).info
    with replacing(table_folder) as temporary:
        shutil.copytree(folder, temporary)
        if revision:
            info = replace(info, revision=revision)
            write_info(temporary, info)
    return info


def write_clean_labels(path: str | Path, ids: Sequence[str], labels: Sequence[int]) -> None:
    """Write the labels known to be true, apart from the table."""
    with replacing(path) as temporary:
        columns = {"sample_id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.int32())}
        pq.write_table(pa.table(columns), temporary, compression="none")


def ingest_pictures(source: Source, config: IngestConfig, table_folder: str | Path, revision: str) -> TableInfo:
    """Write the table of a source; pictures that cannot be read are set aside.

    Raises:
        InputError: Too many of them, or labels that cannot be learned.
    """
    with table_writer(table_folder) as writer:
        labels, splits, unreadable = take_pictures(source, writer)
        check_unreadable(unreadable, len(labels), config.max_unreadable)
        classes = source.classes or natural(set(labels))
        warn_of_names(classes)
        place = {name: index for index, name in enumerate(classes)}
        label_N = np.array([place[label] for label in labels], dtype=np.int32)
        split_N = cut_splits(
            writer.hashes,
            label_N,
            np.array(splits, dtype=object),
            test=config.test,
            validation=config.validation,
            seed=config.split_seed,
        )
        return writer.finish(
            label_N,
            split_N,
            name=source.name,
            classes=classes,
            unreadable=list(unreadable),
            shards=config.shards,
            revision=revision,
        )


def take_pictures(source: Source, writer: TableWriter) -> tuple[list[str], list[str], dict[str, str]]:
    """Write all pictures that can be read; their labels and splits, and of the others where they are and why."""
    labels, splits, unreadable = [], [], {}
    started = reported = time.monotonic()
    for picture, (image, reason) in checked(source.pictures):
        if reason:
            unreadable[picture.source] = reason
            log.warning("set aside %r: %s", picture.source, reason)
            continue
        writer.add(image, picture.source)
        labels.append(picture.label)
        splits.append(picture.split)
        now = time.monotonic()
        if now - reported >= REPORT_SECONDS:
            reported = now
            log.info("%d pictures, %.0f a second", len(labels), len(labels) / (now - started))
    return labels, splits, unreadable


def checked(pictures: Iterator[Picture]) -> Iterator[tuple[Picture, tuple[bytes, str]]]:
    """Read and decode pictures in threads, a few ahead; each in its order with its bytes, or why there are none."""
    readers = min(2 * (os.cpu_count() or 1), MAX_READERS)
    waiting: deque[tuple[Picture, Future[tuple[bytes, str]]]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        try:
            for picture in pictures:
                waiting.append((picture, pool.submit(check_picture, picture)))
                if len(waiting) > 2 * readers:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def check_picture(picture: Picture) -> tuple[bytes, str]:
    """Read a picture; its bytes, or why they cannot be used. What may be there the next time is an error."""
    try:
        image = picture.load()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        return b"", f"it cannot be read: {error.strerror or error}"
    except UnreadableError as error:
        return b"", str(error)
    reason = problem(image)
    return (b"", reason) if reason else (image, "")


def check_unreadable(unreadable: dict[str, str], readable: int, limit: float) -> None:
    """Check that enough pictures can be read.

    Raises:
        InputError: None, or more than the limit cannot.
    """
    total = readable + len(unreadable)
    if len(unreadable) > limit * total:
        first, reason = next(iter(unreadable.items()))
        raise InputError(
            f"max_unreadable must not be passed: at most {limit:g} of the pictures may fail to decode, "
            f"got {len(unreadable)} of {total}, the first {first!r}: {reason}"
        )
    if not readable:
        raise InputError(f"source must hold pictures that can be read, got none of {total}")


def natural(names: set[str]) -> list[str]:
    """Sort names; those that are numbers by their values."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def warn_of_names(classes: Sequence[str]) -> None:
    """Tell of class names that look wrong, but may be meant."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            log.warning("the classes %r and %r differ in case alone", other, name)
    if all(name.isdecimal() for name in classes):
        log.warning("the classes have numbers for names, which say nothing to CLIP")
