"""Run arms x ratios x seeds x label sets, and write a record: one folder with all that is needed to judge and to rerun.

    python -m benchmarks.grid                                  # the digits, which come with the package
    python -m benchmarks.grid --recipe cpu --data DIR --labels clean,random1 --keep 0.5,0.3 --seeds 0,1,2

A finished run is one file in `runs/` of the record; the same command again does what is missing. Full data (to the end
and at equal budget) and dynamic random are always there.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import secateur
from benchmarks.arms import ALWAYS, ARMS
from benchmarks.data import describe
from benchmarks.report import read_runs, write_report
from benchmarks.runs import Job, Setting, load_data, run, uses_semantics, warm_up
from benchmarks.semantics import clip_embeddings
from secateur.files import read_json, write_json

RECORDS = Path(__file__).parent / "records"
SCRATCH = Path(".secateur") / "benchmarks"
QUICK = ("infobatch", "gate-random", "adaptive", "multimodal")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""

    def listed(kind: type) -> object:
        return lambda text: [kind(part) for part in text.split(";" if ";" in text else ",") if part]

    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--recipe", default="digits", choices=("digits", "cpu", "gpu"), help="network and optimisation")
    add("--data", help="folder with CIFAR-10 (npz parts, or as torchvision keeps it); not for the digits")
    add("--labels", type=listed(str), help="label sets: clean, aggre, random1, symmetric30")
    add("--keep", type=listed(float), default=[0.5], help="fractions kept")
    add(
        "--arms",
        type=listed(str),
        default=list(QUICK),
        help="beside the constant ones; by ';' if names have commas",
    )
    add("--curve", type=listed(float), default=[], help="smaller budgets of full data, as `keep`, for the curve")
    add("--seeds", type=listed(int), default=[0, 1, 2])
    add("--semantics", type=listed(str), default=[], help="similarity, degraded94, degraded90, degraded80, clip")
    add("--references", type=listed(str), default=[], help="arms that all others are tested against, in a table each")
    add("--epochs", type=int, default=0, help="of ordinary training; 0 takes the recipe's")
    add("--toy", type=int, default=0, help="so many training pictures only")
    add("--workers", type=int, default=0, help="runs side by side; 0 takes one for each core, or one with a GPU")
    add("--cache", default=str(SCRATCH / "cache"), help="tables, warm-ups, embeddings")
    add("--out", help="folder of the record; one in .secateur/benchmarks without it")
    add("--report-only", action="store_true", help="write the report from the runs that are there")
    args = parser.parse_args(arguments)
    if args.recipe != "digits" and not args.data:
        parser.error("--data must name a folder with CIFAR-10 for this recipe")
    unknown = [arm for arm in args.arms if arm not in ARMS]
    if unknown:
        parser.error(f"--arms must be out of {'; '.join(ARMS)}, got {unknown[0]!r}")
    digits = args.recipe == "digits"
    args.labels = args.labels or (["digits"] if digits else ["clean"])
    args.semantics = args.semantics or (["clip"] if digits else ["similarity"])
    args.out = Path(args.out or SCRATCH / args.recipe)
    args.workers = args.workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    return args


def list_jobs(args: argparse.Namespace) -> list[Job]:
    """All runs of a grid, each once; seeds outermost, so that an interrupted grid has whole comparisons."""
    jobs: dict[str, Job] = {}
    for seed in args.seeds:
        for labels in args.labels:
            wanted = [("full", keep) for keep in (1.0, *args.curve)]
            wanted += [(arm, keep) for keep in args.keep for arm in (*ALWAYS, *args.arms)]
            for arm, keep in wanted:
                for says in args.semantics if uses_semantics(arm) else args.semantics[:1]:
                    job = Job(labels, arm, keep, seed, says)
                    jobs.setdefault(job.name, job)
    return list(jobs.values())


def set_up(threads: int) -> None:
    """Begin a worker process."""
    torch.set_num_threads(threads)


def warm_up_job(task: tuple[Setting, Job]) -> str:
    """Make a warm-up that runs share."""
    setting, job = task
    warm_up(setting, job.labels, job.seed, job.train_config(setting.chosen))
    return f"warm-up {job.labels} seed {job.seed}"


def run_job(task: tuple[Setting, Job, Path]) -> tuple[bool, str]:
    """Do a run and write its file; whether it went well, and what to print. One that fails does not stop the others."""
    setting, job, out = task
    try:
        result = run(setting, job)
    except Exception:
        return False, f"{job.name[:-5]} failed:\n{traceback.format_exc()}"
    write_json(out / "runs" / job.name, result)
    return True, f"{job.name[:-5]}: test {result['test_accuracy']:.2f} %, {result['wall_seconds']:.0f} s"


def hardware(threads: int, workers: int) -> dict[str, object]:
    """The machine, in a few words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": name, "cores": os.cpu_count(), "gpu": gpu, "workers": workers, "threads_per_worker": threads}


def write_config(args: argparse.Namespace, setting: Setting) -> None:
    """Write down what a rerun needs; several commands may add to one record."""
    file = args.out / "config.json"
    before = read_json(file) if file.is_file() else {"commands": [], "arms": {}, "data": {}, "references": []}
    words = sys.argv[1:]
    for flag, word in (("--data", "DIR"), ("--cache", "CACHE"), ("--out", f"benchmarks/records/{args.out.name}")):
        words = [word if i and words[i - 1] == flag else w for i, w in enumerate(words)]
    recipe = setting.chosen
    packages = ("torch", "torchvision", "numpy", "scikit-learn", "open_clip_torch")
    config = {
        "commands": list(dict.fromkeys([*before["commands"], "python -m benchmarks.grid " + shlex.join(words)])),
        "recipe": {"name": recipe.name, "epochs": recipe.epochs, "train": vars(recipe.train)},
        "arms": before["arms"] | {arm: vars(ARMS[arm]) for arm in sorted({*ALWAYS, *args.arms})},
        "references": list(dict.fromkeys([*before["references"], *args.references])),
        "toy": args.toy,
        "data": before["data"] | {labels: describe(load_data(setting, labels)) for labels in args.labels},
        "versions": {"secateur": secateur.__version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "hardware": hardware(threads_of(args.workers), args.workers),
    }
    write_json(file, config)


def do_missing(args: argparse.Namespace, setting: Setting, missing: list[Job]) -> int:
    """Do the runs that are missing, warm-ups first; the number of those that failed."""
    warm = {(j.labels, j.seed, repr(j.train_config(setting.chosen))): j for j in missing}
    started, failed = time.monotonic(), 0
    with side_by_side(args.workers) as each:
        for line in each(warm_up_job, [(setting, j) for j in warm.values()]):
            print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True)
        results = each(run_job, [(setting, j, args.out) for j in missing])
        for done, (well, line) in enumerate(results, start=1):
            print(f"{time.monotonic() - started:6.0f} s  {done}/{len(missing)}  {line}", flush=True)
            failed += not well
    return failed


@contextmanager
def side_by_side(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over worker processes, which gives results as they come; in this process where one is enough."""
    if workers == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers, set_up, (threads_of(workers),)) as pool:
        yield pool.imap_unordered


def threads_of(workers: int) -> int:
    """Threads of each worker."""
    return max(1, (os.cpu_count() or 1) // workers)


def main(arguments: list[str] | None = None) -> None:
    """Do the runs that are missing, and write the report."""
    args = parse(arguments)
    setting = Setting(args.recipe, args.data, args.cache, args.epochs, args.toy)
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    Path(args.cache).mkdir(parents=True, exist_ok=True)
    missing = [job for job in list_jobs(args) if not (args.out / "runs" / job.name).is_file()]
    failed = 0
    if not args.report_only:
        write_config(args, setting)
        for labels in {j.labels for j in missing if j.semantics == "clip" and uses_semantics(j.arm)}:
            clip_embeddings(load_data(setting, labels), args.data, args.cache)  # here, so that no two workers make them
        failed = do_missing(args, setting, missing)
    write_report(args.out, read_runs(args.out))
    print(f"record: {args.out / 'README.md'}")
    if failed:
        sys.exit(f"{failed} runs failed; the same command tries them again")


if __name__ == "__main__":
    main()
