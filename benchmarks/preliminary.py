"""Runs that some baselines need before their own: EL2N, forgetting, the proxy filter. Their cost is counted.

EL2N and forgetting take a model of another seed through ordinary training: EL2N for a quarter of the epochs, forgetting
for all of them. The proxy filter takes a small network over the batches and augmentations that the student will meet,
marks the highest losses of each `PROXY_BATCH`, and trains on those.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secateur.dataset.loader import augment
from secateur.files import replacing
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import METHODS
from secateur.pruning.pruner import Pruner
from secateur.training.config import TrainConfig
from secateur.training.loop import predict_pictures
from secateur.training.phases import Pruning, WarmUp
from secateur.training.seed import Seed

if TYPE_CHECKING:
    from benchmarks.runs import Job, Setting

OTHER_SEED = 1000  # added to the student's
PROXY_BATCH = 4  # of the student's batches
NAMES = ("el2n", "forgetting", "proxy")


@dataclass(frozen=True)
class Preliminary:
    """What came of it.

    Attributes:
        scores: By name; see the method.
        cost: forward_samples, backward_samples and train_seconds.
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)


def run(setting: "Setting", job: "Job", config: PruneConfig, train_config: TrainConfig) -> Preliminary:
    """Make the scores that an arm's method needs, or take them from the cache."""
    name = next((need for need in METHODS[config.method].needs if need in NAMES), None)
    if name is None:
        return Preliminary()
    from benchmarks.runs import load_data, make_work

    share = f"-{config.keep:g}" if name == "proxy" else ""
    digest = load_data(setting, job.labels).table.info.digest[:12]
    stem = f"{name}-{setting.recipe}-{config.epochs}-{digest}-seed{job.seed}{share}"
    file = Path(setting.cache) / f"{stem}.npz"
    if not file.is_file():
        seed = job.seed if name == "proxy" else job.seed + OTHER_SEED
        work = make_work(setting, job.labels, seed, train_config, proxy=name == "proxy")
        score, cost = MAKERS[name](work, config, train_config)
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, score=score, cost_names=list(cost), cost=list(cost.values()))
    saved = np.load(file)
    cost = dict(zip(saved["cost_names"].tolist(), saved["cost"].tolist(), strict=True))
    return Preliminary({name: saved["score"]}, cost)


def ordinary(work: Seed, epochs: int, train_config: TrainConfig, note: Callable[[Tensor, Tensor], None]) -> None:
    """Ordinary training; `note` sees the positions and logits of each batch."""

    def noting(objective: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def call(index_B: Tensor, loss_B: Tensor, logits_BC: Tensor) -> Tensor:
            note(index_B, logits_BC.detach())
            return objective(index_B, loss_B, logits_BC)

        return call

    warm_up = WarmUp(work, train_config)
    warm_up.objective = noting(warm_up.objective)  # type: ignore[method-assign]
    while not warm_up.done:
        warm_up.epoch()
    train = work.trainer.table
    config = PruneConfig(method="full", keep=1.0, epochs=epochs)
    phase = Pruning(work, Pruner(config, train.sample_id.tolist(), train.label), config)
    phase.objective = noting(phase.objective)  # type: ignore[assignment]
    while not phase.done:
        phase.epoch()


def cost_of(work: Seed, scoring: int = 0) -> dict[str, float]:
    """What the training of a preliminary model cost, with forward passes for scoring added."""
    last = work.history[-1]
    return {
        "forward_samples": last["forward_samples"] + scoring,
        "backward_samples": last["samples"],
        "train_seconds": last["seconds"],
    }


def el2n(work: Seed, config: PruneConfig, train_config: TrainConfig) -> tuple[np.ndarray, dict[str, float]]:
    """Length of the error vector, softmax less the given label, early in training, float32 (N,)."""
    epochs = max(train_config.warmup_epochs + 1, config.epochs // 4)
    ordinary(work, epochs, train_config, lambda index_B, logits_BC: None)
    started = time.perf_counter()
    logit_NC = torch.from_numpy(predict_pictures(work.trainer.network, work.trainer.pictures))
    given_NC = functional.one_hot(work.trainer.label_N.cpu(), logit_NC.shape[1])
    score_N = (logit_NC.softmax(1) - given_NC).norm(dim=1).numpy()
    cost = cost_of(work, len(score_N))
    return score_N, cost | {"train_seconds": cost["train_seconds"] + time.perf_counter() - started}


def forgetting(work: Seed, config: PruneConfig, train_config: TrainConfig) -> tuple[np.ndarray, dict[str, float]]:
    """How often a sample was right and then wrong; one that was never right counts as the most, float32 (N,)."""
    label_N, samples = work.trainer.label_N, len(work.trainer.table)
    was_N, ever_N = (torch.zeros(samples, dtype=torch.bool, device=label_N.device) for _ in range(2))
    count_N = torch.zeros(samples, device=label_N.device)

    def note(index_B: Tensor, logits_BC: Tensor) -> None:
        right_B = logits_BC.argmax(1) == label_N[index_B]
        count_N[index_B] += (was_N[index_B] & ~right_B).float()
        was_N[index_B] = right_B
        ever_N[index_B] |= right_B

    ordinary(work, config.epochs, train_config, note)
    count_N[~ever_N] = config.epochs
    return count_N.cpu().numpy(), cost_of(work)


def proxy(work: Seed, config: PruneConfig, train_config: TrainConfig) -> tuple[np.ndarray, dict[str, float]]:
    """The samples of each epoch with the highest losses of their batch under a small network, bool (E, N)."""
    trainer, started, backward = work.trainer, time.perf_counter(), 0
    samples, size = len(trainer.table), PROXY_BATCH * train_config.batch_size
    mark_EN = np.zeros((config.epochs, samples), dtype=bool)
    total = config.epochs * -(-samples // size)
    step = 0
    trainer.network.train()
    for epoch in range(config.epochs):
        order = np.concatenate(trainer.batches(np.ones(samples, dtype=bool), epoch))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        for index_B, pictures_B3HW in zip(batches, trainer.pictures.batches(batches), strict=True):
            changed = augment(pictures_B3HW, trainer.table.key[index_B], train_config.augment, trainer.seed, epoch)
            label_B = trainer.label_N[torch.from_numpy(index_B).to(trainer.device)]
            loss_B = functional.cross_entropy(trainer.forward(changed), label_B, reduction="none")
            top = loss_B.detach().topk(max(1, round(config.keep * len(index_B)))).indices
            loss_B[top].mean().backward()  # type: ignore[no-untyped-call]
            trainer.sgd.step(train_config.learning_rate * min(1.0, 10 * (step + 1) / total) * (1 - step / total))
            mark_EN[epoch, index_B[top.cpu().numpy()]] = True
            backward += len(top)
            step += 1
    seconds = time.perf_counter() - started
    forward = config.epochs * samples
    return mark_EN, {"forward_samples": forward, "backward_samples": backward, "train_seconds": seconds}


MAKERS = {"el2n": el2n, "forgetting": forgetting, "proxy": proxy}
