"""Time to check a version out, from nothing but the registry's place to the folder on the disk, digests checked.

    python -m benchmarks.checking_out

The data set is noise: pictures of 32 x 32 pixels, uncompressed, in ten classes, none of them pruned. Beside the formats
stands what the disk takes for the same files: `shutil.copytree` of the class folders.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

import secateur
from benchmarks.grid import RECORDS, hardware
from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, open_table, write_table
from secateur.files import write_json
from secateur.pruning.mask import Mask, write_mask, write_trajectory
from secateur.records.registry.catalogue import SCHEMA_VERSION
from secateur.records.registry.checkout import KINDS, check_out, open_version
from secateur.records.registry.repository import open_or_create
from secateur.records.registry.versions import publish_mask

PICTURES = 50_000
CLASSES = tuple("abcdefghij")
SIDE = 32
PEER = "copytree of the folder"


def publish(folder: Path, pictures: int) -> tuple[str, str]:
    """Publish a mask that keeps everything; the registry and the version."""
    rng = np.random.default_rng(0)
    rows = (
        Row(encode_bmp(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)), i % len(CLASSES), "train", f"{i:06d}.bmp")
        for i in range(pictures)
    )
    info = write_table(folder / "data", rows, name="noise", classes=CLASSES)
    ids = open_table(folder / "data").sample_id
    zeros = np.zeros(pictures, np.float32)
    kept, reason = np.ones(pictures, dtype=bool), np.full(pictures, "kept", dtype=object)
    mask = Mask(ids, kept, reason, zeros, zeros, zeros, zeros, zeros.astype(np.int32), zeros.astype(np.int32), meta={})
    write_mask(folder / "mask", mask)
    write_trajectory(folder / "mask", [])
    dataset = {"name": info.name, "digest": info.digest, "classes": list(CLASSES)}
    facts = {"schema_version": SCHEMA_VERSION, "mask_digest": mask.digest, "dataset": dataset, "mlflow": {}}
    location = open_or_create(folder / "registry.git")
    made = publish_mask(location, folder / "mask", "noise/full-1", facts, dataset_folder=folder / "data")
    return location, made.name


def measure(folder: Path, pictures: int) -> dict[str, float]:
    """Seconds of each format."""
    location, name = publish(folder, pictures)
    seconds = {}
    for kind in KINDS:
        started = time.perf_counter()
        with open_version(location, name) as version:
            check_out(version, folder / kind, kind)
        seconds[kind] = time.perf_counter() - started
    started = time.perf_counter()
    shutil.copytree(folder / "folder", folder / "copy")
    seconds[PEER] = time.perf_counter() - started
    return seconds


def write_record(folder: Path, seconds: dict[str, float], pictures: int) -> None:
    """Write the figures, and the table."""
    machine = hardware(1, 1)
    write_json(folder / "results.json", {"hardware": machine, "pictures": pictures, "seconds": seconds})
    lines = [
        "# Checking out",
        "",
        f"Seconds to check out a version of {pictures:,} pictures ({SIDE} x {SIDE} pixels, none pruned): from the",
        "registry's place to files on the disk; clone, mask and table out of the store, every digest checked.",
        f"On {machine['cpu']}, secateur {secateur.__version__}; registry, store and folder on one disk.",
        "Made by `python -m benchmarks.checking_out`.",
        "",
        "| `--as` | seconds |",
        "|---|---:|",
        *(f"| {kind} | {value:.1f} |" for kind, value in seconds.items()),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure all formats, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checking_out", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--out", type=Path, default=RECORDS / "checking-out")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        seconds = measure(Path(scratch), args.pictures)
    write_record(args.out, seconds, args.pictures)
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
