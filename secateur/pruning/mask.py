"""The mask: which samples a method keeps, and why; the unit that is versioned."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.errors import InputError
from secateur.files import replacing

if TYPE_CHECKING:
    from torch.utils.data import Dataset, Subset

SCHEMA_VERSION = 1
MASK_FILE = "mask.parquet"
TRAJECTORY_FILE = "trajectory.parquet"
META_KEY = b"secateur"

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("loss", pa.float32()),
        pa.field("consistency", pa.float32()),
        pa.field("label_probability", pa.float32()),
        pa.field("suggested_label", pa.int32()),
        pa.field("epochs_used", pa.int32(), nullable=False),
    ]
)
TRAJECTORY_SCHEMA = pa.schema(
    [
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("active", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Mask:
    """One row for each training sample, in the order of the table.

    Attributes:
        sample_id: Ids, object (N,).
        kept: Whether the sample is in the pruned data set, bool (N,).
        reason: A `secateur.pruning.method.Reason`, object (N,).
        score: The higher, the rather kept, float32 (N,); its scale is the method's own.
        loss: Moving average of the cross-entropy, float32 (N,); NaN for a sample never visited.
        consistency: Semantic consistency q with the given label, float32 (N,); NaN without CLIP.
        label_probability: Probability that the given label is right, float32 (N,); NaN without CLIP.
        suggested_label: The class that CLIP and the label model find likeliest, int32 (N,); -1 without CLIP.
        epochs_used: Epochs in which the sample was trained on, warm-up included, int32 (N,).
        meta: Schema version, data set, method, configuration, requested and achieved keep, seed.
    """

    sample_id: npt.NDArray[np.object_]
    kept: npt.NDArray[np.bool_]
    reason: npt.NDArray[np.object_]
    score: npt.NDArray[np.float32]
    loss: npt.NDArray[np.float32]
    consistency: npt.NDArray[np.float32]
    label_probability: npt.NDArray[np.float32]
    suggested_label: npt.NDArray[np.int32]
    epochs_used: npt.NDArray[np.int32]
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.sample_id)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the columns, which names the mask everywhere; where it came from does not count."""
        digest = hashlib.sha256(f"secateur mask {SCHEMA_VERSION}\n".encode())
        for name in SCHEMA.names:
            column = getattr(self, name)
            content = "\n".join(column).encode() if column.dtype == object else np.ascontiguousarray(column).tobytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    @property
    def reasons(self) -> dict[str, int]:
        """Number of samples for each reason."""
        return dict(sorted(Counter(self.reason.tolist()).items()))

    def subset(self, dataset: "Dataset[Any]", sample_ids: Sequence[str] | None = None) -> "Subset[Any]":
        """The kept samples of a data set.

        Args:
            dataset: Has the samples of the mask in their order; or any of them, and others that are left out.
            sample_ids: In the latter case, the ids of all that it has, such as `secateur.dataset.image_ids` gives.

        Raises:
            InputError: The data set cannot be the one that the mask is about.
        """
        from torch.utils.data import Subset

        ids = self.sample_id.tolist() if sample_ids is None else list(sample_ids)
        kept = set(self.sample_id[self.kept].tolist())
        if len(dataset) != len(ids) or kept.isdisjoint(ids):  # type: ignore[arg-type]
            raise InputError(f"dataset must have {len(ids)} samples, some of them the mask's, got {len(dataset)}")  # type: ignore[arg-type]
        return Subset(dataset, [place for place, sample_id in enumerate(ids) if sample_id in kept])


def write_mask(folder: str | Path, mask: Mask) -> None:
    """Write `mask.parquet` into a folder; the same mask gives the same bytes."""
    arrays = []
    for entry in SCHEMA:
        column = getattr(mask, entry.name)
        absent = column < 0 if entry.name == "suggested_label" else None
        arrays.append(pa.array(column, entry.type, mask=absent, from_pandas=entry.nullable))
    meta = {META_KEY: json.dumps({"schema_version": SCHEMA_VERSION, **mask.meta}, sort_keys=True).encode()}
    table = pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(meta))
    with replacing(Path(folder) / MASK_FILE) as temporary:
        pq.write_table(table, temporary, compression="none")


def read_mask(folder: str | Path) -> Mask:
    """Read a mask.

    Raises:
        InputError: There is none, or it has another schema.
    """
    path = Path(folder) / MASK_FILE if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        raise InputError(f"mask must be a folder with {MASK_FILE}, got {str(folder)!r}")
    try:
        table = pq.read_table(path)
        meta = json.loads(table.schema.metadata[META_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise InputError(f"mask must be a file that secateur wrote, got {str(path)!r}") from error
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"mask schema version must be {SCHEMA_VERSION}, got {meta.get('schema_version')}")
    columns: dict[str, Any] = {}
    for entry in SCHEMA:
        column = table[entry.name]
        if entry.name == "suggested_label":
            column = column.fill_null(-1)
        values = column.to_numpy(zero_copy_only=False)
        columns[entry.name] = values if values.dtype == object else values.astype(entry.type.to_pandas_dtype())
    return Mask(**columns, meta=meta)


def write_trajectory(folder: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write the samples of every epoch of every seed, bit-packed.

    Args:
        folder: Where.
        rows: seed, epoch, phase, count, and `active` as packed bits, uint8.
    """
    packed = [{**row, "active": row["active"].tobytes()} for row in rows]
    with replacing(Path(folder) / TRAJECTORY_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist(packed, schema=TRAJECTORY_SCHEMA), temporary, compression="none")


def read_trajectory(folder: str | Path, samples: int) -> list[dict[str, Any]]:
    """Read what `write_trajectory` wrote, with `active` as bool (samples,)."""
    rows: list[dict[str, Any]] = pq.read_table(Path(folder) / TRAJECTORY_FILE).to_pylist()
    for row in rows:
        row["active"] = np.unpackbits(np.frombuffer(row["active"], np.uint8), count=samples).astype(bool)
    return rows
