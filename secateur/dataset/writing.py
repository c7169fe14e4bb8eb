"""Writing a table picture by picture: none is held in memory, however many there are.

The pictures go one after the other into a scratch file. When all are there, and with them the labels, the splits and
the order, the shards are written from it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secateur.dataset.rows import (
    INFO_FILE,
    SCHEMA,
    SPLITS,
    Row,
    TableInfo,
    check_labels,
    image_hash,
    table_digest,
    unique_ids,
)
from secateur.files import replacing, write_json

BATCH_ROWS = 4096
BATCH_BYTES = 64 * 2**20
SCRATCH_FILE = "pictures"


class TableWriter:
    """Takes pictures, then what else there is to know of them; see `table_writer`.

    Attributes:
        hashes: Of the pictures so far (`image_hash`).
    """

    def __init__(self, folder: Path, scratch: BinaryIO) -> None:
        self.folder, self.scratch = folder, scratch
        self.hashes: list[str] = []
        self.sources: list[str] = []
        self.captions: list[str | None] = []
        self.ends = [0]

    def add(self, image: bytes, source: str, caption: str | None = None) -> None:
        """Take the next picture.

        Args:
            image: Its encoded bytes.
            source: Where it came from, for a person.
            caption: A text that is known to be true of it.
        """
        self.scratch.write(image)
        self.ends.append(self.ends[-1] + len(image))
        self.hashes.append(image_hash(image))
        self.sources.append(source)
        self.captions.append(caption)

    def finish(
        self,
        label_N: npt.NDArray[np.int32],
        split_N: npt.NDArray[np.object_],
        *,
        name: str,
        classes: Sequence[str],
        prompts: Sequence[str] | None = None,
        unreadable: Sequence[str] = (),
        shards: int = 1,
        revision: str = "",
    ) -> TableInfo:
        """Write the table of all pictures taken; arguments as in `write_table`.

        Raises:
            InputError: See `check_labels`.
        """
        check_labels(label_N, split_N, classes)
        ids, counts = unique_ids(self.hashes), Counter(split_N.tolist())
        info = TableInfo(
            name=name,
            classes=tuple(classes),
            digest=table_digest(ids, label_N.tolist(), split_N.tolist(), classes),
            shards=tuple(f"shard-{s:05d}-of-{shards:05d}.arrow" for s in range(shards)),
            counts={split: counts[split] for split in SPLITS},
            unreadable=tuple(unreadable),
            prompts=tuple(prompts or TableInfo.prompts),
            revision=revision,
        )
        bounds = np.linspace(0, len(ids), shards + 1).astype(int)
        for shard, start, stop in zip(info.shards, bounds[:-1], bounds[1:], strict=True):
            with pa.OSFile(str(self.folder / shard), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                for first, last in self._batches(int(start), int(stop)):
                    columns: list[Any] = [
                        pa.array(ids[first:last], pa.string()),
                        self._images(first, last),
                        pa.array(label_N[first:last], pa.int32()),
                        pa.array(split_N[first:last].tolist(), pa.string()),
                        pa.array(self.sources[first:last], pa.string()),
                        pa.array(self.captions[first:last], pa.string()),
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        write_info(self.folder, info)
        return info

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut rows into batches of bounded length and size, of one row at least."""
        while start < stop:
            last = int(np.searchsorted(self.ends, self.ends[start] + BATCH_BYTES, side="right")) - 1
            last = min(max(last, start + 1), start + BATCH_ROWS, stop)
            yield start, last
            start = last

    def _images(self, start: int, stop: int) -> pa.Array:
        """The pictures of some rows, read back from the scratch file."""
        self.scratch.seek(self.ends[start])
        content = self.scratch.read(self.ends[stop] - self.ends[start])
        offsets = np.array(self.ends[start : stop + 1], np.int64) - self.ends[start]
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), stop - start, [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        )


@contextmanager
def table_writer(folder: str | Path) -> Iterator[TableWriter]:
    """Give a writer for a table, which is in its place when the block ends well.

    Args:
        folder: Where; replaced as a whole if it is there.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        scratch = temporary / SCRATCH_FILE
        with scratch.open("w+b") as opened:
            yield TableWriter(temporary, opened)
        scratch.unlink()


def write_table(
    folder: str | Path,
    rows: Iterable[Row],
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
    labels, splits = [], []
    with table_writer(folder) as writer:
        for row in rows:
            writer.add(row.image, row.source, row.caption)
            labels.append(row.label)
            splits.append(row.split)
        label_N, split_N = np.array(labels, dtype=np.int32), np.array(splits, dtype=object)
        return writer.finish(
            label_N, split_N, name=name, classes=classes, prompts=prompts, unreadable=unreadable, shards=shards
        )


def write_info(folder: Path, info: TableInfo) -> None:
    """Write `dataset.json`."""
    fields = asdict(info)
    if not info.revision:
        del fields["revision"]
    write_json(folder / INFO_FILE, fields)
