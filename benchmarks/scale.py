"""One selection update of millions of samples that lie in shards on several processes, on paper and one at a time.

    python -m benchmarks.scale

Nothing is gathered: processes sum histograms of fixed size (`secateur.pruning.sharded`). All of them are simulated here
in turns, which gives what they tell each other; then one of them goes through its part again alone, with the answers
that it got, for its time and the memory that it takes beside what it holds anyway. The kept set must have the asked
number of samples, and be that of one process with all samples, as far as one can hold them.
"""

import argparse
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import secateur
from benchmarks.grid import RECORDS, hardware
from secateur.files import write_json
from secateur.pruning import selection, sharded
from secateur.pruning.multimodal import move
from secateur.pruning.selection import Bools, Ints, Singles, geometric, noisy
from secateur.pruning.sharded import Talk
from secateur.streams import Keys, sample_keys

SIZES = (1_281_167, 100_000_000)
RANKS, CLASSES, KEEP, RATE = 8, 1000, 0.5, 0.5
SCALE = geometric(4, 400, 0.5)
FLOORS = {"floors hold by themselves": 0.2, "every class at its floor": 1.0}


@dataclass(frozen=True)
class Shard:
    """What one process holds of its samples."""

    key_N: Keys
    label_N: Ints
    loss_N: Singles
    consistency_N: Singles
    logit_N: Singles

    @property
    def held(self) -> int:
        """Bytes."""
        return sum(array.nbytes for array in vars(self).values())


def make(size: int, ranks: int, seed: int = 0) -> list[Shard]:
    """Samples with losses and semantics as a run has them, in shards."""
    shards, bounds = [], np.linspace(0, size, ranks + 1).astype(np.int64)
    for rank, (first, end) in enumerate(pairwise(bounds)):
        rng, many = np.random.default_rng([seed, rank]), int(end - first)
        loss_N = rng.standard_gamma(0.5, many, dtype=np.float32)
        consistency_N = -rng.standard_gamma(0.2, many, dtype=np.float32)
        label_N = rng.integers(0, CLASSES, many, dtype=np.int32)
        logit_N = rng.random(many, dtype=np.float32)
        shards.append(Shard(sample_keys(np.arange(first, end)), label_N, loss_N, consistency_N, logit_N))
    return shards


def update(shard: Shard, count: int, floor: float, place: tuple[int, int]) -> Talk[Bools]:
    """One update of `multimodal`, from losses and semantics to the active set."""
    value_N = yield from sharded.rank(shard.loss_N)
    value_N += yield from sharded.rank(shard.consistency_N)
    score_N = noisy(move(shard.logit_N, value_N, RATE), SCALE, shard.key_N, "selection", 0, 10)
    del value_N
    kept_N, _ = yield from sharded.project(
        score_N, count, shard.label_N, shard.key_N, None, floor, classes=CLASSES, place=place
    )
    return kept_N


def in_one(shards: list[Shard], count: int, floor: float) -> Bools:
    """The same update by one process that holds all samples."""
    whole = Shard(*(np.concatenate([vars(s)[name] for s in shards]) for name in vars(shards[0])))
    value_N = selection.rank(whole.loss_N, whole.key_N) + selection.rank(whole.consistency_N, whole.key_N)
    score_N = noisy(move(whole.logit_N, value_N, RATE), SCALE, whole.key_N, "selection", 0, 10)
    return selection.project(score_N, count, whole.label_N, whole.key_N, floor=floor)[0]


def listened(talk: Talk[Bools], answers: list[np.ndarray[Any, Any]]) -> Talk[Bools]:
    """The same conversation, with what was answered noted."""
    try:
        said = next(talk)
        while True:
            answers.append((yield said))
            said = talk.send(answers[-1])
    except StopIteration as end:
        kept_N: Bools = end.value
        return kept_N


def again(talk: Talk[Bools], answers: list[np.ndarray[Any, Any]]) -> Bools:
    """A conversation held with known answers."""
    replies: Iterator[Any] = iter([None, *answers])
    try:
        while True:
            talk.send(next(replies))
    except StopIteration as end:
        kept_N: Bools = end.value
        return kept_N


def measure(size: int, ranks: int, floor: float, compare: bool) -> dict[str, Any]:
    """Figures of one update."""
    shards, count, answers = make(size, ranks), round(KEEP * size), list[np.ndarray[Any, Any]]()
    talks = [update(shard, count, floor, (rank, ranks)) for rank, shard in enumerate(shards)]
    kept = sharded.in_turns([listened(talks[0], answers), *talks[1:]])
    assert sum(int(np.count_nonzero(k)) for k in kept) == count
    if compare:
        assert np.array_equal(np.concatenate(kept), in_one(shards, count, floor))
    first = shards[0]
    mine_N, held, many = kept[0], first.held, len(first.key_N)
    del shards, talks, kept
    started = time.process_time()
    assert np.array_equal(again(update(first, count, floor, (0, ranks)), answers), mine_N)
    seconds = time.process_time() - started
    tracemalloc.start()
    again(update(first, count, floor, (0, ranks)), answers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "samples": size,
        "ranks": ranks,
        "samples_per_rank": many,
        "seconds_per_rank": seconds,
        "held_bytes_per_rank": held,
        "working_bytes_per_rank": peak,
        "messages": len(answers),
        "message_bytes": sum(answer.nbytes for answer in answers),
        "gathered_bytes": 4 * size,
        "equal_to_one_process": compare or None,
    }


def write_record(folder: Path, results: list[dict[str, Any]]) -> None:
    """Write the figures, and the table."""
    machine = hardware(1, 1)
    write_json(folder / "results.json", {"hardware": machine, "results": results})
    lines = [
        "# Selection at scale",
        "",
        f"One update of `multimodal` (two ranks, mask step, draw, projection to half of the samples, {CLASSES:,}",
        f"classes), with the samples in shards on {results[0]['ranks']} processes, simulated in turns. CPU seconds and",
        f"memory are those of one process, on one thread of {machine['cpu']}; numpy {np.__version__}, secateur",
        f"{secateur.__version__}.",
        "Made by `python -m benchmarks.scale`.",
        "",
        "Held: losses, consistency, mask logits, labels and keys of its samples. Working: the peak beside that. Told:",
        "what a process puts into sums over all of them, which hardly depends on the number of samples; gathering the",
        "scores instead would bring every process 4 bytes a sample, in the last column, before it could start.",
        "",
        "| samples | class floors | CPU s a process | held | working | sums | told | gathered |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        mib = [r[f"{name}_bytes_per_rank"] / 2**20 for name in ("held", "working")]
        lines.append(
            f"| {r['samples']:,} | {r['floors']} | {r['seconds_per_rank']:.2f} | {mib[0]:,.0f} MiB | {mib[1]:,.0f} MiB "
            f"| {r['messages']} | {r['message_bytes'] / 2**20:.1f} MiB | {r['gathered_bytes'] / 2**20:,.0f} MiB |"
        )
    equal = [f"{r['samples']:,}" for r in results if r["equal_to_one_process"]]
    if equal:
        lines += [
            "",
            f"With {equal[0]} samples the kept set is that of one process with all of them, sample by sample.",
        ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure all sizes, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=list(SIZES))
    parser.add_argument("--ranks", type=int, default=RANKS)
    parser.add_argument("--out", type=Path, default=RECORDS / "scale")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    results = [
        {"floors": name, **measure(size, args.ranks, floor, compare=size < 10**7)}
        for size in args.sizes
        for name, floor in FLOORS.items()
    ]
    write_record(args.out, results)
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
