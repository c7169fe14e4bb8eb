"""Time of one selection update, from losses and semantics at hand to the active set, on one core.

    python -m benchmarks.cost_of_choosing

Beside the methods stands the sampler of InfoBatch as its authors describe and publish it, written afresh: numpy's
`where`, `random.choice` without replacement, and a shuffle. Rounds alternate between all of them, so that each meets
the same machine; the table has medians. Losses are drawn from a gamma distribution, semantics at random.
"""

import argparse
import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import secateur
from benchmarks.grid import RECORDS, hardware
from secateur.files import write_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses
from secateur.pruning.method import Method, Progress, Samples, Semantics
from secateur.pruning.methods import METHODS, make_method
from secateur.streams import sample_keys

SIZES = (50_000, 1_281_167, 10_000_000)
CLASSES = {50_000: 10, 1_281_167: 1000, 10_000_000: 1000}
OURS = ("random", "infobatch", "adaptive", "multimodal")
PEER, PEER_SHUFFLED = "InfoBatch as published, active set", "InfoBatch as published, shuffled"
ROUNDS = 9
PRUNED = 0.5
SKIPPED = 2  # first rounds: what a method sets up once


def make_samples(size: int, seed: int = 0) -> Samples:
    """Samples with losses and semantics as a run has them."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, CLASSES.get(size, 10), size).astype(np.int32)
    losses = SampleLosses(size)
    losses.last_N = rng.gamma(0.5, 1.0, size).astype(np.float32)
    losses.mean_N = 0.5 * losses.last_N + 0.5 * rng.gamma(0.5, 1.0, size).astype(np.float32)
    losses.visits_N[:] = 3
    probability_N = rng.beta(8, 1, size).astype(np.float32)
    semantics = Semantics(np.log(probability_N), np.sqrt(probability_N), label_N.astype(np.int16))
    return Samples(sample_keys(np.arange(size)), label_N, losses, semantics)


class Peer:
    """The published sampler: below-mean samples are drawn by half and weigh twice; then all is shuffled."""

    def __init__(self, loss_N: np.ndarray) -> None:
        self.score_N = loss_N.astype(np.float64)
        self.weight_N = np.ones(len(loss_N))
        self.rng = np.random.RandomState(0)  # the generator that the published sampler draws from

    def active(self) -> np.ndarray:
        """Positions to visit, and the weights with them."""
        low_N = self.score_N < self.score_N.mean()
        low, high = np.where(low_N)[0], np.where(~low_N)[0]
        drawn = self.rng.choice(low, int((1 - PRUNED) * len(low)), replace=False)
        self.weight_N[:] = 1
        self.weight_N[drawn] = 1 / (1 - PRUNED)
        return np.concatenate([high, drawn])

    def shuffled(self) -> np.ndarray:
        """The same in random order."""
        index = self.active()
        self.rng.shuffle(index)
        return index


def held_bytes(value: Any, seen: set[int]) -> int:
    """Bytes of all arrays that an object holds, each counted once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        base = value.base if isinstance(value.base, np.ndarray) else value
        return 0 if base is not value and id(base) in seen else base.nbytes
    if isinstance(value, dict):
        return sum(held_bytes(v, seen) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(held_bytes(v, seen) for v in value)
    if hasattr(value, "__dict__"):
        return held_bytes(vars(value), seen)
    return 0


def held_by(method: Method, samples: Samples) -> float:
    """Bytes for each sample of what a method keeps and looks at: losses, labels, keys, semantics and its own state."""
    seen = samples if "semantics" in type(method).needs else dataclasses.replace(samples, semantics=None)
    return held_bytes([method, seen], set()) / len(samples)


def measure(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each sampler, and bytes held for each sample."""
    samples = make_samples(size)
    methods = {n: make_method(PruneConfig(method=n, keep=0.5, epochs=100)) for n in OURS if n in METHODS}
    peer = Peer(samples.losses.last_N)
    calls: dict[str, Callable[[int], Any]] = {
        name: lambda r, method=method: method.select(samples, Progress(r, 0.2 + 0.5 * r / rounds, 0, 1.0))
        for name, method in methods.items()
    }
    calls |= {PEER: lambda r: peer.active(), PEER_SHUFFLED: lambda r: peer.shuffled()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + SKIPPED):
        for name, call in calls.items():
            started = time.perf_counter()
            call(round_)
            seconds[name].append(time.perf_counter() - started)
    held = {name: held_by(method, samples) for name, method in methods.items()}
    held |= dict.fromkeys((PEER, PEER_SHUFFLED), held_bytes(peer, set()) / size)
    return {
        name: {
            "seconds": float(np.median(times[SKIPPED:])),
            "fastest": min(times[SKIPPED:]),
            "bytes_per_sample": held[name],
        }
        for name, times in seconds.items()
    }


def write_record(folder: Path, results: dict[int, dict[str, dict[str, float]]], rounds: int) -> None:
    """Write the figures, and the table."""
    machine = hardware(1, 1)
    write_json(folder / "results.json", {"hardware": machine, "results": {str(n): r for n, r in results.items()}})
    lines = [
        "# Cost of choosing",
        "",
        "Milliseconds of one selection update, from losses and semantics at hand to the active set, and bytes held for",
        f"each sample (losses, labels, keys, semantics, the method's own). Medians of {rounds} rounds that alternate",
        f"between all rows; one thread of {machine['cpu']}, numpy {np.__version__}, Python",
        f"{platform.python_version()}, secateur {secateur.__version__}. Losses are drawn from a gamma distribution.",
        "Made by `python -m benchmarks.cost_of_choosing`.",
        "",
        "The peer is written afresh from InfoBatch's description, on arrays throughout. Its first row stops where ours",
        "do, at the set to visit; the second also shuffles it, which with us is the loader's work.",
        "",
        "| sampler | " + " | ".join(f"N = {size:,}" for size in results) + " | bytes a sample |",
        "|---|" + "---:|" * (len(results) + 1),
    ]
    for name in next(iter(results.values())):
        times = " | ".join(f"{1e3 * result[name]['seconds']:.1f}" for result in results.values())
        most = max(result[name]["bytes_per_sample"] for result in results.values())
        lines.append(f"| {name} | {times} | {most:.0f} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure all sizes, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_of_choosing", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RECORDS / "cost-of-choosing")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    results = {size: measure(size, args.rounds) for size in args.sizes}
    write_record(args.out, results, args.rounds)
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
