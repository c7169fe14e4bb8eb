"""One run of the grid: an arm at a ratio on a label set under a seed, through the library's own loop."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data as data_sets
from benchmarks import preliminary, semantics
from benchmarks.arms import ARMS
from benchmarks.data import Data
from benchmarks.recipes import RECIPES, Recipe, forward_flops, make_network
from secateur.dataset.loader import Pictures
from secateur.files import replacing
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Semantics
from secateur.pruning.methods import METHODS
from secateur.pruning.pruner import Pruner
from secateur.training.checkpoint import dump, load
from secateur.training.config import TrainConfig
from secateur.training.loop import pick_device, predict_pictures, wants_bf16
from secateur.training.phases import Pruning, Retraining, WarmUp
from secateur.training.seed import Seed

TESTED = (0.25, 0.5, 0.75)  # fractions of pruning after which the test accuracy is noted; nothing depends on it


@dataclass(frozen=True)
class Setting:
    """What all runs of a record share."""

    recipe: str
    folder: str | None  # with the data; None for the digits
    cache: str
    epochs: int = 0  # 0 takes the recipe's
    toy: int = 0  # training pictures; 0 takes all

    def __post_init__(self) -> None:
        assert self.recipe in RECIPES, f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}"

    @property
    def chosen(self) -> Recipe:
        """The recipe, with the epochs asked for."""
        recipe = RECIPES[self.recipe]
        return replace(recipe, epochs=self.epochs or recipe.epochs)


@dataclass(frozen=True)
class Job:
    """One run."""

    labels: str
    arm: str
    keep: float
    seed: int
    semantics: str

    @property
    def name(self) -> str:
        """A file name that no other run has."""
        arm = self.arm.replace(", ", "--").replace(" ", "-")
        says = f"-{self.semantics}" if uses_semantics(self.arm) else ""
        return f"{self.labels}-{self.keep:g}-{arm}{says}-seed{self.seed}.json"

    def train_config(self, recipe: Recipe) -> TrainConfig:
        """The recipe's optimisation, with the arm's changes."""
        return replace(recipe.train, seeds=(self.seed,), **ARMS[self.arm].train)


def uses_semantics(arm: str) -> bool:
    """Whether an arm looks at CLIP."""
    return "semantics" in METHODS[ARMS[arm].method].needs


@cache
def load_data(setting: Setting, labels: str) -> Data:
    """A label set, read once in a process."""
    return data_sets.load(labels, setting.folder, setting.cache, setting.toy)


@cache
def load_pictures(setting: Setting, labels: str, split: str) -> Pictures:
    """The decoded pictures of a split, held once in a process."""
    return Pictures(load_data(setting, labels).table.part(split), setting.chosen.size, pick_device())


@cache
def load_semantics(setting: Setting, labels: str, name: str) -> tuple[Semantics, dict[str, Any]]:
    """What CLIP says, fitted once in a process, with the seconds that the fit took."""
    data = load_data(setting, labels)
    similarity_NC = semantics.similarities(name, data, setting.folder, setting.cache)
    started = time.perf_counter()
    says, figures = semantics.fit(similarity_NC, data)
    figures |= {"name": name, "fit_seconds": time.perf_counter() - started}
    if name == "clip":
        figures["probe_test_accuracy"] = 100 * semantics.probe(data, setting.folder, setting.cache)
    return says, figures


def make_work(setting: Setting, labels: str, seed: int, config: TrainConfig) -> Seed:
    """Network and data of a seed; pictures are shared by all runs of a process."""
    table, recipe = load_data(setting, labels).table, setting.chosen
    pictures = load_pictures(setting, labels, "train")
    network = make_network(recipe, len(table.info.classes), pictures, seed)
    return Seed(table, config, recipe.size, seed, network, pictures)


def warm_up(setting: Setting, labels: str, seed: int, config: TrainConfig) -> dict[str, Any]:
    """The state after the warm-up, trained once for all arms that share it."""
    identity = [setting.recipe, load_data(setting, labels).table.info.digest, asdict(config), torch.__version__]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    file = Path(setting.cache) / f"warmup-{labels}-seed{seed}-{key}.pt"
    if not file.is_file():
        work = make_work(setting, labels, seed, config)
        phase = WarmUp(work, config)
        while not phase.done:
            phase.epoch()
        with replacing(file) as temporary:
            temporary.write_bytes(dump(work.state_dict()))
    return load(file.read_bytes(), file.name)


def timed(function: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    """The function, with the seconds of each call noted."""

    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - started)

    return call


def test_accuracy(setting: Setting, labels: str, work: Seed) -> float:
    """Accuracy on the test split, in percent, in the precision of training."""
    device, table = work.trainer.device, load_data(setting, labels).table
    label_N = table.label[table.split == "test"]
    bf16 = wants_bf16(work.trainer.config.precision, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logit_NC = predict_pictures(work.trainer.network, load_pictures(setting, labels, "test"))
    return 100 * float((logit_NC.argmax(1) == label_N).mean())


def run(setting: Setting, job: Job) -> dict[str, Any]:
    """Train one arm and say how it went."""
    arm, recipe, data = ARMS[job.arm], setting.chosen, load_data(setting, job.labels)
    config = PruneConfig(method=arm.method, keep=job.keep, epochs=recipe.epochs, **arm.prune)
    train_config = job.train_config(recipe)
    before = warm_up(setting, job.labels, job.seed, train_config)
    says, figures = load_semantics(setting, job.labels, job.semantics) if uses_semantics(job.arm) else (None, None)
    pictures = load_pictures(setting, job.labels, "train")
    extra = preliminary.run(recipe, setting.cache, job.seed, config, train_config, data.table, pictures)
    started = time.perf_counter()
    work = make_work(setting, job.labels, job.seed, train_config)
    work.load_state_dict(before)
    train = work.trainer.table
    pruner = Pruner(
        config, train.sample_id.tolist(), train.label, seed=job.seed, semantics=says, scores=extra.scores or None
    )
    phase = Pruning(work, pruner, config)
    choosing: list[float] = []
    pruner.next_epoch = timed(pruner.next_epoch, choosing)  # type: ignore[method-assign]
    tested: list[tuple[int, float]] = []
    while not phase.done:
        phase.epoch()
        if len(tested) < len(TESTED) and phase.steps >= TESTED[len(tested)] * phase.total_steps:
            tested.append((work.history[-1]["samples"], test_accuracy(setting, job.labels, work)))
    if config.retrain:
        history, work = work.history, make_work(setting, job.labels, job.seed, train_config)
        again = Retraining(work, pruner, config, history)
        while not again.done:
            again.epoch()
    accuracy = test_accuracy(setting, job.labels, work)
    last = work.history[-1]
    return asdict(job) | {
        "test_accuracy": accuracy,
        "validation_accuracy": None if last["validation_accuracy"] is None else 100 * last["validation_accuracy"],
        "test_curve": [*tested, (last["samples"], accuracy)],
        "validation_curve": [(e["samples"], e["validation_accuracy"], e["validation_loss"]) for e in work.history],
        "kept_curve": [e["kept"] for e in work.history],
        "wrong_curve": [wrong_share(row["active"], data) for row in pruner.trajectory],
        "backward_samples": last["samples"],
        "forward_samples": last["forward_samples"],
        "full_samples": recipe.epochs * len(train),
        "preliminary": extra.cost,
        "teraflops": teraflops(recipe, len(data.table.info.classes), last, extra.cost, "proxy" in extra.scores),
        "seconds": last["seconds"],
        "choosing_seconds": sum(choosing),
        "choosing_milliseconds_median": 1000 * float(np.median(choosing)),
        "wall_seconds": time.perf_counter() - started,
        "keep_achieved": float(pruner.mask().kept.mean()),
        "semantics_figures": figures,
        "alarms": list(pruner.alarms),
        "threads": torch.get_num_threads(),
        "pid": os.getpid(),
    }


def teraflops(recipe: Recipe, classes: int, last: dict[str, Any], extra: dict[str, float], proxy: bool) -> float:
    """All arithmetic of the networks: a way forward for each picture seen, two more for each one learned from."""
    ways = last["forward_samples"] + 2 * last["samples"]
    flops = ways * forward_flops(recipe, classes)
    if extra:
        flops += (extra["forward_samples"] + 2 * extra["backward_samples"]) * forward_flops(recipe, classes, proxy)
    return flops / 1e12


def wrong_share(active_N: Any, data: Data) -> float:
    """Share of wrong labels in an epoch's set, which comes as packed bits; for the report."""
    return float(data.wrong_N[np.unpackbits(active_N, count=len(data.wrong_N)).astype(bool)].mean())
