"""The formats of a checkout; the same rows give the same bytes."""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from secateur.dataset.images import EXTENSIONS
from secateur.dataset.table import ImageTable
from secateur.pruning.mask import Mask

Rows = npt.NDArray[np.int64]
Batch = Mapping[str, Sequence[Any]]

SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("image", pa.large_binary()), ("label", pa.int32()), ("class", pa.string()),
     ("source", pa.string())]
)  # fmt: skip

IDS_FILE = "ids.txt"
DATA = "data"
BATCH = 500  # rows written at a time, so that neither we nor readers need hold many pictures
SHARD_SAMPLES = 5_000  # of a tar file
SHARD_BYTES = 512 * 2**20
WRITERS_AT_ONCE = 8
NAME_BYTES = 180
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def write_ids(folder: Path, mask: Mask) -> int:
    """Write the ids of the kept samples, one a line; their number."""
    ids = mask.sample_id[mask.kept].tolist()
    (folder / IDS_FILE).write_text("".join(f"{sample_id}\n" for sample_id in ids))
    return len(ids)


def write_parquet(folder: Path, table: ImageTable, rows_N: Rows) -> None:
    """Write one Parquet file for each split: id, encoded picture, label and its name, source."""
    for split, here in by_split(table, rows_N):
        write_batches(folder / f"{split}.parquet", SCHEMA, table, here, lambda batch: batch)


def write_hf(folder: Path, table: ImageTable, rows_N: Rows) -> None:
    """Write Parquet files as Hugging Face `datasets` does, with pictures and class labels as such."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(table.info.classes), "_type": "ClassLabel"},
        "sample_id": {"dtype": "string", "_type": "Value"},
    }
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", picture), ("label", pa.int64()), ("sample_id", pa.string())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})

    def fields(batch: Batch) -> Batch:
        images = [
            {"bytes": image, "path": f"{sample_id}{extension(source, image)}"}
            for image, sample_id, source in zip(batch["image"], batch["sample_id"], batch["source"], strict=True)
        ]
        return {"image": images, "label": batch["label"], "sample_id": batch["sample_id"]}

    (folder / DATA).mkdir()
    for split, here in by_split(table, rows_N):
        write_batches(folder / DATA / f"{split}-00000-of-00001.parquet", schema, table, here, fields)


def write_batches(
    path: Path, schema: pa.Schema, table: ImageTable, rows_N: Rows, fields: Callable[[Batch], Batch]
) -> None:
    """Write rows of a table to a Parquet file; pictures are compressed already."""
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for batch in batches(table, rows_N):
            writer.write_table(pa.table({n: fields(batch)[n] for n in schema.names}, schema=schema))


def batches(table: ImageTable, rows_N: Rows) -> Iterator[Batch]:
    """The columns of some rows at a time."""
    for start in range(0, len(rows_N), BATCH):
        here = rows_N[start : start + BATCH].tolist()
        yield {
            "sample_id": [str(table.sample_id[i]) for i in here],
            "image": [table.image(i) for i in here],
            "label": table.label[here].tolist(),
            "class": [table.info.classes[table.label[i]] for i in here],
            "source": [table.source(i) for i in here],
        }


def write_folder(folder: Path, table: ImageTable, rows_N: Rows) -> None:
    """Write class folders with the pictures under their own names; under folders for the splits, if there are more."""
    split_rows = list(by_split(table, rows_N))
    with ThreadPoolExecutor(WRITERS_AT_ONCE) as pool:
        for split, here in split_rows:
            root = folder / split if len(split_rows) > 1 else folder
            names = distinct(table.info.classes, "class")
            for name in names:
                (root / name).mkdir(parents=True, exist_ok=True)
            taken: list[set[str]] = [set() for _ in names]
            jobs = []
            for i in here.tolist():
                image, label = table.image(i), int(table.label[i])
                name = file_name(table.source(i), image, str(table.sample_id[i]), taken[label])
                jobs.append(pool.submit((root / names[label] / name).write_bytes, image))
                if len(jobs) >= BATCH:  # so that no more pictures than these are held
                    for job in jobs:
                        job.result()
                    jobs = []
            for job in jobs:
                job.result()


def distinct(names: Sequence[str], empty: str) -> list[str]:
    """File names for names, all different even where case does not count."""
    made: list[str] = []
    for place, name in enumerate(names):
        safe = safe_name(name) or empty
        while safe.casefold() in {other.casefold() for other in made}:
            safe = f"{safe}-{place}"
        made.append(safe)
    return made


def safe_name(name: str) -> str:
    """What is left of a name that any file system takes, and no path can hide in.

    >>> safe_name("../a: b?.png")
    '_a_ b_.png'
    """
    safe = UNSAFE.sub("_", name).encode(errors="replace")[-NAME_BYTES:].decode(errors="ignore")
    return safe.strip(". ")


def file_name(source: str, image: bytes, sample_id: str, taken: set[str]) -> str:
    """The own name of a picture, with its id where another one has that name already.

    Args:
        source: Where it came from; a path or URL, or any text.
        image: Its bytes, which say what kind it is where its name does not.
        sample_id: Its id.
        taken: Names in the folder so far, case-folded; this one is added.
    """
    base = PurePosixPath(source.replace("\\", "/").partition("?")[0]).name
    suffix = extension(base, image)
    stem = safe_name(base[: -len(suffix)] if base.lower().endswith(suffix) else base) or sample_id
    name = f"{stem}{suffix}"
    if name.casefold() in taken:
        name = f"{stem}-{sample_id}{suffix}"
    taken.add(name.casefold())
    return name


def extension(source: str, image: bytes) -> str:
    """The suffix of a picture: its own, or the one of what it is."""
    suffix = PurePosixPath(source).suffix.lower()
    if suffix in EXTENSIONS:
        return suffix
    with Image.open(io.BytesIO(image)) as opened:
        return {"JPEG": ".jpg", "TIFF": ".tif"}.get(opened.format or "", f".{(opened.format or 'img').lower()}")


def write_webdataset(folder: Path, table: ImageTable, rows_N: Rows) -> None:
    """Write tar files of samples `<id>.<suffix>`, `<id>.cls` (the label's number) and `<id>.json`."""
    for split, here in by_split(table, rows_N):
        for number, shard in enumerate(shards(table, here)):
            with tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for i in shard:
                    add_sample(tar, table, i)


def shards(table: ImageTable, rows_N: Rows) -> Iterator[list[int]]:
    """Cut rows into shards by number and size."""
    shard: list[int] = []
    size = 0
    for i in rows_N.tolist():
        length = len(table.image(i))
        if shard and (len(shard) >= SHARD_SAMPLES or size + length > SHARD_BYTES):
            yield shard
            shard, size = [], 0
        shard.append(i)
        size += length
    if shard:
        yield shard


def add_sample(tar: tarfile.TarFile, table: ImageTable, row: int) -> None:
    """Add one sample to a tar file, with nothing in it that differs from time to time."""
    sample_id, image, label = str(table.sample_id[row]), table.image(row), int(table.label[row])
    source = table.source(row)
    about = {"sample_id": sample_id, "label": label, "class": table.info.classes[label], "source": source}
    for suffix, content in (
        (extension(source, image), image),
        (".cls", str(label).encode()),
        (".json", json.dumps(about, sort_keys=True).encode()),
    ):
        member = tarfile.TarInfo(f"{sample_id}{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def write_torch(folder: Path, table: ImageTable, rows_N: Rows) -> None:
    """Write one Arrow file for each split, which `secateur.load_pictures` maps into memory, and the class names."""
    for split, here in by_split(table, rows_N):
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches(table, here):
                writer.write_batch(pa.RecordBatch.from_pydict({n: batch[n] for n in SCHEMA.names}, schema=SCHEMA))


def by_split(table: ImageTable, rows_N: Rows) -> Iterator[tuple[str, Rows]]:
    """The rows of each split that has any, in their order."""
    split_N = table.split[rows_N]
    for split in dict.fromkeys(split_N.tolist()):
        yield str(split), rows_N[split_N == split]


WRITERS: dict[str, Callable[[Path, ImageTable, Rows], None]] = {
    "parquet": write_parquet,
    "folder": write_folder,
    "webdataset": write_webdataset,
    "hf": write_hf,
    "torch": write_torch,
}
