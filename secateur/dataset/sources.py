"""Where a data set comes from: the embedded digits, a folder of class folders, or a table."""

import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.dataset import digits
from secateur.dataset.images import EXTENSIONS, is_readable
from secateur.dataset.table import INFO_FILE, Row, TableInfo, image_ids, open_table, write_table
from secateur.errors import InputError, require_range
from secateur.files import replacing

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
                 "validation": "validation", "test": "test"}  # fmt: skip


@dataclass(frozen=True)
class IngestConfig:
    """How a data set is read."""

    source: str = digits.NAME  # "digits", a folder of class folders, or a folder with a table
    validation: float = 0.08  # fraction of the training pictures held out to steer pruning, where the source has none
    test: float = 0.2  # fraction of all pictures held out for the evaluation, where the source has no test split
    max_unreadable: float = 0.01  # fraction of pictures that may fail to decode before the step fails
    shards: int = 1  # files of the table; each is embedded by a task of its own
    split_seed: int = 0  # seed of the splits, and of the wrong labels in the digits

    def __post_init__(self) -> None:
        require_range("validation", self.validation, 0, 0.5)
        require_range("test", self.test, 0, 0.5, open_low=True)
        require_range("max_unreadable", self.max_unreadable, 0, 1)
        require_range("shards", self.shards, 1)
        if self.source != digits.NAME:
            folder = Path(self.source)
            if not folder.is_dir():
                raise InputError(f"source must be 'digits' or a folder, got {self.source!r}, which is not there")
            if not any(folder.iterdir()):
                raise InputError(f"source must be a folder with pictures, got {self.source!r}, which is empty")


def ingest(config: IngestConfig, table_folder: str | Path, clean_labels_file: str | Path) -> TableInfo:
    """Read a data set into a table.

    Args:
        config: What to read.
        table_folder: Where the table is written.
        clean_labels_file: Where the labels known to be true are written, Parquet (sample_id, label): of every picture
            of the digits, of none elsewhere. It is for the evaluation alone.

    Raises:
        InputError: The source cannot be used; the message says why.
    """
    if config.source == digits.NAME:
        rows, clean = digits.digits_rows(config.split_seed)
        info = write_table(
            table_folder, rows, name=digits.NAME, classes=digits.CLASSES, prompts=digits.PROMPTS, shards=config.shards
        )
        write_clean_labels(clean_labels_file, image_ids(row.image for row in rows), clean)
    elif (Path(config.source) / INFO_FILE).is_file():
        info = open_table(config.source).info
        with replacing(table_folder) as temporary:
            shutil.copytree(config.source, temporary)
        write_clean_labels(clean_labels_file, [], [])
    else:
        info = ingest_folder(config, Path(config.source), table_folder)
        write_clean_labels(clean_labels_file, [], [])
    log.info(
        "data set %s: %s, digest %s", info.name, ", ".join(f"{n} {s}" for s, n in info.counts.items()), info.digest
    )
    return info


def write_clean_labels(path: str | Path, ids: Sequence[str], labels: Sequence[int]) -> None:
    """Write the labels known to be true, apart from the table."""
    with replacing(path) as temporary:
        columns = {"sample_id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.int32())}
        pq.write_table(pa.table(columns), temporary, compression="none")


def find_pictures(folder: Path) -> list[tuple[str, str, Path]]:
    """List (split, class, file) of a folder of class folders; the split is empty where there are no split folders."""
    top = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    split_folders = [p for p in top if p.name.lower() in SPLIT_FOLDERS]
    roots = [(SPLIT_FOLDERS[p.name.lower()], p) for p in split_folders] or [("", folder)]
    return [
        (split, class_folder.name, file)
        for split, root in roots
        for class_folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        for file in sorted(class_folder.rglob("*"))
        if file.suffix.lower() in EXTENSIONS
    ]


def ingest_folder(config: IngestConfig, folder: Path, table_folder: str | Path) -> TableInfo:
    """Read a folder of class folders, with or without folders for the splits above them."""
    found = find_pictures(folder)
    if not found:
        raise InputError(
            f"source must hold pictures in class folders ({', '.join(sorted(EXTENSIONS))}), got none in {str(folder)!r}"
        )
    classes = sorted({p.name for p in class_folders(folder)})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda entry: entry[2].read_bytes(), found))
        readable = list(pool.map(is_readable, images))
    unreadable = [str(file.relative_to(folder)) for (*_, file), good in zip(found, readable, strict=True) if not good]
    for name in unreadable:
        log.warning("set aside %s: it does not decode", name)
    if len(unreadable) > config.max_unreadable * len(found):
        raise InputError(
            f"max_unreadable must not be passed: at most {config.max_unreadable:g} of the pictures may fail to decode, "
            f"got {len(unreadable)} of {len(found)}, the first {unreadable[0]!r}"
        )
    rows = [
        Row(image=image, label=classes.index(name), split=split or "train", source=str(file.relative_to(folder)))
        for image, good, (split, name, file) in zip(images, readable, found, strict=True)
        if good
    ]
    rows = cut_missing_splits(rows, config)
    return write_table(
        table_folder, rows, name=folder.resolve().name, classes=classes, unreadable=unreadable, shards=config.shards
    )


def class_folders(folder: Path) -> list[Path]:
    """The class folders of a source, also those without a picture."""
    top = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    split_folders = [p for p in top if p.name.lower() in SPLIT_FOLDERS]
    return [
        p for root in (split_folders or [folder]) for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
    ]


def cut_missing_splits(rows: list[Row], config: IngestConfig) -> list[Row]:
    """Cut a test and a validation split out of the training rows where the source brings none."""
    present = {row.split for row in rows}
    shares = {}
    if "test" not in present:
        shares["test"] = config.test
    if "validation" not in present and config.validation:
        shares["validation"] = config.validation * (1 - shares.get("test", 0.0))
    trainable = [i for i, row in enumerate(rows) if row.split == "train"]
    ids = image_ids(row.image for row in rows)
    label_N = np.array([rows[i].label for i in trainable])
    split_N = digits.assign_splits([ids[i] for i in trainable], label_N, config.split_seed, shares)
    for i, split in zip(trainable, split_N, strict=True):
        rows[i] = Row(rows[i].image, rows[i].label, str(split), rows[i].source)
    return rows
