"""The embeddings of a table: one folder for each shard, with ids, vectors and what made them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secateur.dataset.table import ImageTable
from secateur.errors import InputError
from secateur.files import file_digest, read_json

SCHEMA_VERSION = 2
IMAGES_FILE, TEXTS_FILE, INFO_FILE = "embeddings.arrow", "texts.npy", "embeddings.json"
ROWS_PER_BATCH = 8192
OF_ONE_SHARD = ("shard", "pictures", "embedded", "reused", "digests")  # what `embeddings.json` says of a shard alone

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """What CLIP makes of a table.

    Attributes:
        image_ND: Unit vector of each picture, float32, in the order of the table.
        text_CD: Unit vector of each class, float32.
        info: Which CLIP, with which weights and prompts; see `embed_shard`.
    """

    image_ND: Floats
    text_CD: Floats
    info: dict[str, Any]


class VectorFile:
    """Vectors on their way to disk, float16 (N, D), written in any order; none of them is held in memory."""

    def __init__(self, path: Path, width: int) -> None:
        """Make the file.

        Args:
            path: Where; it is removed once it has been read.
            width: D.
        """
        self.path, self.width = path, width
        path.touch()

    def put(self, position_B: npt.NDArray[np.int64], vector_BD: npt.NDArray[np.float16]) -> None:
        """Write vectors at their positions, each run of neighbours in one go."""
        cuts = np.flatnonzero(np.diff(position_B) != 1) + 1
        with self.path.open("r+b") as file:
            for start, run_BD in zip(position_B[[0, *cuts]], np.split(vector_BD, cuts), strict=True):
                file.seek(int(start) * self.width * vector_BD.itemsize)
                file.write(np.ascontiguousarray(run_BD).data)

    def write_images(self, path: Path, sample_ids: npt.NDArray[np.object_]) -> None:
        """Write an Arrow file with ids and vectors, and remove this one."""
        schema = pa.schema([("sample_id", pa.string()), ("embedding", pa.list_(pa.float16(), self.width))])
        with (
            self.path.open("rb") as file,
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            for start in range(0, len(sample_ids), ROWS_PER_BATCH):
                ids = pa.array(sample_ids[start : start + ROWS_PER_BATCH], pa.string())
                values = np.fromfile(file, dtype=np.float16, count=len(ids) * self.width)
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), self.width)
                writer.write_batch(pa.record_batch([ids, vectors], schema=schema))
        self.path.unlink()


def read_images(path: Path) -> tuple[list[str], npt.NDArray[np.float16]]:
    """Read ids and embeddings, float16 (N, D)."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    vectors = table["embedding"].combine_chunks()
    return table["sample_id"].to_pylist(), vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)


def unit(vector_ND: npt.NDArray[Any]) -> Floats:
    """Scale vectors to length 1, float32."""
    vector_ND = vector_ND.astype(np.float32)
    return np.asarray(vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True))


def open_embeddings(folders: Sequence[str | Path], table: ImageTable) -> Embeddings:
    """Open the embeddings of all shards of a table, or of the rows of a part.

    Args:
        folders: What `embed_shard` wrote, in any order.
        table: The rows that are wanted; those of the split `reference` are passed over.

    Raises:
        InputError: Embeddings of another data set or by different models, or a sample that has none or two.
    """
    infos = [read_info(Path(folder), table) for folder in folders]
    if len({json.dumps({key: info[key] for key in info if key not in OF_ONE_SHARD}) for info in infos}) != 1:
        made = sorted({f"{info['model']} {info['weights'][:12]} in {info['precision']}" for info in infos}) or ["none"]
        raise InputError(f"embeddings must be made by one CLIP with the same prompts, got {', '.join(made)}")
    wanted = [sample_id for sample_id, split in zip(table.sample_id, table.split, strict=True) if split != "reference"]
    place_of = {sample_id: place for place, sample_id in enumerate(wanted)}
    image_ND = np.zeros((len(wanted), infos[0]["width"]), dtype=np.float32)
    seen: set[str] = set()
    for folder in folders:
        sample_ids, read_ND = read_images(Path(folder) / IMAGES_FILE)
        for sample_id in sample_ids:
            if sample_id in seen:
                raise InputError(f"embeddings must cover every sample once, got {sample_id} twice")
            seen.add(sample_id)
        rows = [row for row, sample_id in enumerate(sample_ids) if sample_id in place_of]
        image_ND[[place_of[sample_ids[row]] for row in rows]] = unit(read_ND[rows])
    missing = [sample_id for sample_id in wanted if sample_id not in seen]
    if missing:
        lost = sorted(set(table.info.shards) - {info["shard"] for info in infos})
        where = f": the shard {lost[0]} is lost" if lost else ""
        raise InputError(
            f"embeddings must cover every sample once, got none for {len(missing)}, as {missing[0]}{where}"
        )
    info = {key: value for key, value in infos[0].items() if key not in OF_ONE_SHARD}
    return Embeddings(image_ND, np.load(Path(folders[0]) / TEXTS_FILE, allow_pickle=False), info)


def read_info(folder: Path, table: ImageTable) -> dict[str, Any]:
    """Read what made a shard's embeddings.

    Raises:
        InputError: They are not there, damaged, or of another data set.
    """
    if not (folder / INFO_FILE).is_file():
        raise InputError(f"embeddings must be a folder with {INFO_FILE}, got {str(folder)!r}")
    info: dict[str, Any] = read_json(folder / INFO_FILE)
    if info["dataset"]["digest"] != table.info.digest:
        raise InputError(
            f"embeddings must be of data set {table.info.digest[:12]}, got {info['dataset']['digest'][:12]}"
        )
    for name in (IMAGES_FILE, TEXTS_FILE):
        digest = info.get("digests", {}).get(name, "none")
        found = file_digest(folder / name) if (folder / name).is_file() else "no file"
        if found != digest:
            raise InputError(f"{name} must have the SHA-256 that {INFO_FILE} says, {digest[:12]}, got {found[:12]}")
    return info
