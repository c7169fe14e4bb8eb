"""`secateur inspect` on CIFAR-10 with people's labels: what it finds first, how long it takes, and in how much memory.

    python -m benchmarks.inspecting --data DIR --work DIR

The small CLIP in `DIR/cifar-clip` judges `random1` on the 30,000 training pictures that it never saw; of its first 50
suspects those are counted whose label is in fact wrong. Time and peak memory are of the whole command on all 50,000
training pictures, called a second time, so that table and embeddings are at hand. True labels are used to count, alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import secateur
from benchmarks.data import CLASSES, PROMPTS, encode, given_labels, read_cifar10, training_pictures
from benchmarks.grid import RECORDS, hardware
from secateur.dataset.table import Row, write_table
from secateur.files import write_json

FIRST = 50
UNSEEN = 20_000  # the small CLIP was trained on the training pictures before
LABEL_SET = "random1"


def make_tables(data: Path, work: Path) -> np.ndarray:
    """Write the unseen and all training pictures as tables; give the clean labels by place in the original order."""
    pixels, clean_N = read_cifar10(data)
    train = training_pictures(len(pixels))
    given_N = given_labels(LABEL_SET, data, clean_N[:train], np.empty(0, np.uint64))
    rows = [Row(encode(pixels[i]), int(given_N[i]), "train", f"{i:05d}") for i in range(train)]
    for name, part in (("unseen", rows[UNSEEN:]), ("all", rows)):
        write_table(work / name, part, name=f"cifar10-{LABEL_SET}-{name}", classes=CLASSES, prompts=PROMPTS)
    return clean_N[:train]


def inspect(data: Path, work: Path, name: str) -> dict[str, float]:
    """Run the command on a table; seconds by the clock and of all cores, load of the machine, and peak memory."""
    weights = next((data / "cifar-clip").glob("*.safetensors"))
    words = ["inspect", work / name, "--checkpoint", weights, "--clip-config", weights.with_suffix(".json")]
    words += ["--home", work / "home", "--out", work / f"{name}-findings"]
    started = time.monotonic()
    process = subprocess.Popen([Path(sys.executable).with_name("secateur"), *map(str, words)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"secateur inspect ended with status {status}")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "load": round(os.getloadavg()[0], 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def first_suspects(work: Path, clean_N: np.ndarray) -> dict[str, Any]:
    """How many of the first suspects are in fact wrong, and the estimated and the true rate."""
    findings = pq.read_table(work / "unseen-findings" / "findings.parquet")
    place_N = np.array(findings["source"].to_pylist()).astype(int)
    given_N = np.array([CLASSES.index(name) for name in findings["given"].to_pylist()])
    wrong_N = given_N != clean_N[place_N]
    order = np.lexsort((findings["margin"].to_numpy(), -findings["probability_wrong"].to_numpy()))
    rate = json.loads(findings.schema.metadata[b"secateur"])["rate"]
    return {
        "first": FIRST,
        "in_fact_wrong": int(wrong_N[order[:FIRST]].sum()),
        "rate": rate,
        "true": float(wrong_N.mean()),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inspecting", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, cifar10n.npz and cifar-clip/")
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, embeddings and reports")
    parser.add_argument("--out", type=Path, default=RECORDS / "inspecting")
    args = parser.parse_args(arguments)
    clean_N = make_tables(args.data, args.work)
    inspect(args.data, args.work, "unseen")
    suspects = first_suspects(args.work, clean_N)
    inspect(args.data, args.work, "all")
    cost = {"pictures": len(clean_N)} | inspect(args.data, args.work, "all")
    machine = hardware(os.cpu_count() or 1, 1)
    results = {"hardware": machine, "version": secateur.__version__, "suspects": suspects, "cost": cost}
    write_json(args.out / "results.json", results)
    (args.out / "README.md").write_text(describe(results))
    print(describe(results))


def describe(results: dict[str, Any]) -> str:
    """The record in words."""
    suspects, cost, machine = results["suspects"], results["cost"], results["hardware"]
    rate = suspects["rate"]
    return f"""# Inspecting CIFAR-10 with people's labels

Made by `python -m benchmarks.inspecting --data DIR --work DIR`; {machine["cores"]} cores of {machine["cpu"]}, secateur
{results["version"]}. Labels are CIFAR-10N's `{LABEL_SET}`, CLIP is the small one in `DIR/cifar-clip`.

| what | |
|---|---|
| of the first {suspects["first"]} suspected labels among the 30,000 pictures that CLIP never saw, in fact wrong | \
**{suspects["in_fact_wrong"]}** |
| wrong labels there, estimated (a lower bound) | {rate["value"]:.1%} ({rate["low"]:.1%} to {rate["high"]:.1%}) |
| wrong labels there, in fact | {suspects["true"]:.1%} |
| `secateur inspect` on {cost["pictures"]:,} pictures, table and embeddings at hand: seconds of all cores together | \
{cost["cpu_seconds"]:.0f} |
| the same by the clock, at a load average of {cost["load"]:.1f} | {cost["seconds"]:.0f} |
| its peak memory, pages of the mapped files included | {cost["peak_gib"]:.2f} GiB |
"""


if __name__ == "__main__":
    main()
