"""Masks of the digits that were pruned by one, two and four processes: the same bytes, or how far they agree.

    python -m benchmarks.processes

Every process has one thread. With `deterministic` all masks must be the same bytes, and the record says so; without it,
the agreement is the share of samples that are kept, or dropped, as by one process. Beside it stands what another seed
alone does to the mask: as much is chance.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import secateur
from benchmarks.grid import RECORDS, hardware
from secateur.dataset.sources import IngestConfig, ingest
from secateur.files import file_digest, read_json, write_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import MASK_FILE, read_mask
from secateur.training.config import TrainConfig
from secateur.training.distributed import PROCESSES_VARIABLE
from secateur.training.runs import prune, warm_up

PRUNE = PruneConfig(method="adaptive", keep=0.7, epochs=16)
COUNTS = (1, 2, 4)


def run(data: Path, out: Path, deterministic: bool, processes: int, seed: int) -> dict[str, Any]:
    """Warm up and prune; the mask, its bytes' digest, the weights', the accuracy and the seconds."""
    os.environ[PROCESSES_VARIABLE] = str(processes)
    started = time.monotonic()
    warm_up(data, TrainConfig(seeds=(seed,), deterministic=deterministic), out / "warm")
    prune(data, [], out / "warm", PRUNE, out / "model", out / "mask")
    seconds = time.monotonic() - started
    return {
        "kept": read_mask(out / "mask").kept,
        "mask": file_digest(out / "mask" / MASK_FILE),
        "weights": file_digest(out / "model" / f"seed-{seed}" / "weights.safetensors"),
        "accuracy": read_json(out / "model" / f"seed-{seed}" / "history.json")[-1]["validation_accuracy"],
        "seconds": seconds,
    }


def compare(folder: Path) -> list[dict[str, Any]]:
    """Figures of all runs, with the agreement with one process.

    Raises:
        AssertionError: Deterministic runs differ.
    """
    torch.set_num_threads(1)
    data = folder / "data"
    ingest(IngestConfig(), data, folder / "clean.parquet")
    runs = [(deterministic, count, 0) for deterministic in (True, False) for count in COUNTS] + [(False, 1, 1)]
    found = {which: run(data, folder / "-".join(map(str, which)), *which) for which in runs}
    results = []
    for (deterministic, processes, seed), result in found.items():
        one = found[deterministic, 1, 0]
        same = result["mask"] == one["mask"] and result["weights"] == one["weights"]
        assert same or not deterministic
        figures = {"accuracy": result["accuracy"], "seconds": result["seconds"], "same_bytes": same}
        agreement = float(np.mean(result["kept"] == one["kept"]))
        which = {"deterministic": deterministic, "processes": processes, "seed": seed}
        results.append(which | figures | {"agreement": agreement})
    return results


def write_record(folder: Path, results: list[dict[str, Any]]) -> None:
    """Write the figures, and the table."""
    machine = hardware(1, 1)
    write_json(folder / "results.json", {"hardware": machine, "results": results})
    lines = [
        "# One, two and four processes",
        "",
        f"The digits, warmed up and pruned by `{PRUNE.method}` at keep {PRUNE.keep:g} for {PRUNE.epochs} epochs, seed",
        f"0, batch {TrainConfig.batch_size}, gloo, one thread a process, {machine['cpu']}; torch {torch.__version__},",
        f"secateur {secateur.__version__}. Made by `python -m benchmarks.processes`.",
        "",
        "| training | processes | same bytes as one | samples kept or dropped as by one | validation accuracy |",
        "|---|---:|---|---:|---:|",
    ]
    for r in results:
        name = ("deterministic" if r["deterministic"] else "ordinary") + (", another seed" if r["seed"] else "")
        same = "mask and weights" if r["same_bytes"] else "no"
        lines.append(f"| {name} | {r['processes']} | {same} | {r['agreement']:.1%} | {r['accuracy']:.1%} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run all, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RECORDS / "processes")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_record(args.out, compare(Path(scratch)))
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
