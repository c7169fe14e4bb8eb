"""CIFAR-10 with several sets of labels, and the digits, as tables of the library; made once in a cache folder.

All label sets share pictures and splits. The splits hang on the pictures alone: no label, clean or not, moves them.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from secateur.dataset import ImageTable, open_table
from secateur.dataset.sources import IngestConfig, ingest
from secateur.dataset.table import INFO_FILE, Row, image_ids, write_table
from secateur.streams import sample_keys, shuffled, uniform

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PROMPTS = ("a photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of the {}.", "{}")
LABEL_SETS = ("clean", "aggre", "random1", "symmetric30")
VALIDATION = 0.05
SYMMETRIC = 0.3

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """A table with what only the evaluation may see.

    Attributes:
        table: Given labels; splits train, validation, test.
        original_N: Rows of the table that are for training, int64 (N,); of CIFAR-10, also their places in the
            original order.
        wrong_N: Whether its given label is wrong, bool (N,); for reports alone.
    """

    table: ImageTable
    original_N: Labels
    wrong_N: npt.NDArray[np.bool_]


def read_cifar10(folder: str | Path) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Read pictures, uint8 (60000, 32, 32, 3), and clean labels, int64 (60000,), training pictures first.

    Args:
        folder: With `cifar10-part0.npz` to `-part2.npz` (arrays `images`, `labels`), or torchvision's CIFAR10.
    """
    parts = sorted(Path(folder).glob("cifar10-part*.npz"))
    if parts:
        read = [np.load(part) for part in parts]
        return np.concatenate([r["images"] for r in read]), np.concatenate([r["labels"] for r in read]).astype(np.int64)
    from torchvision.datasets import CIFAR10

    halves = [CIFAR10(str(folder), train=train, download=False) for train in (True, False)]
    return np.concatenate([h.data for h in halves]), np.concatenate([np.array(h.targets) for h in halves])


def training_pictures(pictures: int) -> int:
    """How many of the pictures come before the test split, which is the last sixth."""
    return pictures * 5 // 6


def given_labels(name: str, folder: str | Path, clean_N: Labels, key_N: npt.NDArray[np.uint64]) -> Labels:
    """The training labels of a label set, int64 (N,)."""
    if name == "clean":
        return clean_N
    if name == "symmetric30":
        return symmetric_noise(clean_N, key_N, SYMMETRIC, "symmetric30")
    return np.load(Path(folder) / "cifar10n.npz")[name].astype(np.int64)


def symmetric_noise(label_N: Labels, key_N: npt.NDArray[np.uint64], share: float, stream: str) -> Labels:
    """Give exactly `share` of the samples another class, drawn evenly among the others."""
    chosen = shuffled(key_N, stream, "who")[: round(share * len(label_N))]
    step = 1 + np.floor(uniform(key_N[chosen], stream, "what") * (len(CLASSES) - 1)).astype(np.int64)
    noisy_N = label_N.copy()
    noisy_N[chosen] = (label_N[chosen] + step) % len(CLASSES)
    return noisy_N


def encode(pixels_HW3: npt.NDArray[np.uint8]) -> bytes:
    """A picture as BMP, which is quick to decode."""
    out = io.BytesIO()
    Image.fromarray(pixels_HW3).save(out, format="BMP")
    return out.getvalue()


def cifar10(name: str, folder: str | Path, cache: str | Path, toy: int = 0) -> Data:
    """CIFAR-10 under one of `LABEL_SETS`.

    Args:
        name: Label set; `aggre` and `random1` need `cifar10n.npz`.
        folder: See `read_cifar10`.
        cache: Where the tables are kept.
        toy: The first so many training pictures, and a fifth as many test pictures; 0 for all.
    """
    where = Path(cache) / (f"cifar10-{name}" + (f"-toy{toy}" if toy else ""))
    if not (where / INFO_FILE).is_file():
        pixels, clean_N = read_cifar10(folder)
        images = [encode(pixels_HW3) for pixels_HW3 in pixels]
        train = training_pictures(len(images))
        key_N = sample_keys(image_ids(images))[:train]
        split_N = np.array(["train"] * train + ["test"] * (len(images) - train), dtype=object)
        split_N[shuffled(key_N, "benchmark validation")[: round(VALIDATION * train)]] = "validation"
        label_N = clean_N.copy()
        label_N[:train] = given_labels(name, folder, clean_N[:train], key_N)
        wanted = [*range(toy or train), *range(train, train + toy // 5 if toy else len(images))]
        rows = [Row(images[i], int(label_N[i]), str(split_N[i]), f"{i:05d}") for i in wanted]
        write_table(where, rows, name=where.name, classes=CLASSES, prompts=PROMPTS)
        np.save(where / "wrong.npy", (label_N != clean_N)[wanted])
    table = open_table(where)
    train_N = np.flatnonzero(table.split == "train")
    return Data(table, train_N, np.load(where / "wrong.npy")[train_N])


def digits(cache: str | Path) -> Data:
    """The embedded digits, of whose training labels 15 % are wrong."""
    where = Path(cache) / "digits"
    if not (where / "data" / INFO_FILE).is_file():
        ingest(IngestConfig(), where / "data", where / "clean.parquet")
    table = open_table(where / "data")
    import pyarrow.parquet as pq

    known = pq.read_table(where / "clean.parquet")
    clean = dict(zip(known["sample_id"].to_pylist(), known["label"].to_pylist(), strict=True))
    original_N = np.flatnonzero(table.split == "train")
    clean_N = np.array([clean[i] for i in table.sample_id[original_N]])
    return Data(table, original_N, table.label[original_N] != clean_N)


def load(name: str, folder: str | Path | None, cache: str | Path, toy: int = 0) -> Data:
    """The digits, or CIFAR-10 under a label set."""
    return digits(cache) if name == "digits" else cifar10(name, str(folder), cache, toy)


def describe(data: Data) -> dict[str, object]:
    """What a record says of a data set."""
    info = data.table.info
    return {"name": info.name, "digest": info.digest, "counts": info.counts, "wrong_labels": float(data.wrong_N.mean())}


if __name__ == "__main__":
    import sys

    for label_set in LABEL_SETS:
        print(json.dumps(describe(cifar10(label_set, sys.argv[1], sys.argv[2]))))
