"""Runs that some methods need before their own: EL2N, forgetting, and the proxy that goes first. Their cost counts."""

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from secateur.dataset import ImageTable
from secateur.dataset.loader import Pictures
from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.distributed import from_first, place
from secateur.pruning.dynamics import ForgettingEvents, el2n, mark_counts
from secateur.pruning.losses import as_array
from secateur.streams import shuffled, stream_seed
from secateur.training.checkpoint import CheckpointStore, dump, load
from secateur.training.config import TrainConfig
from secateur.training.loop import Trainer, pick_device, predict_pictures
from secateur.training.models import Classifier, ConvNet, make_network
from secateur.training.phases import pruning_steps

log = logging.getLogger(__name__)

EL2N_NETWORKS = 10
EL2N_EPOCHS = 0.1  # of an ordinary run: the twentieth of two hundred epochs in the paper
PROXY_WIDTH = 16  # half of the small network's


@dataclass(frozen=True)
class Preliminary:
    """What came of preliminary runs.

    Attributes:
        scores: "el2n" and "forgetting", float32 (N,); "proxy", bool (E, N), row e for epoch e.
        cost: forward_samples, backward_samples, seconds.
    """

    scores: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)


class Scout:
    """The data, the settings and the bill of one seed's preliminary runs."""

    def __init__(
        self,
        train: ImageTable,
        config: TrainConfig,
        prune: PruneConfig,
        size: int,
        seed: int,
        pictures: Pictures | None = None,
        make: Callable[[int], nn.Module] | None = None,
        make_proxy: Callable[[int], nn.Module] | None = None,
    ) -> None:
        """Get ready.

        Args:
            train: Training rows.
            config: Optimisation, the same as that of the run itself.
            prune: Epochs and ratio.
            size: Pixels of a side.
            seed: Of the run itself.
            pictures: Of the training rows, where they have been read already.
            make: From a seed to a network, where it is not the one that the config names.
            make_proxy: From a seed to the small network that goes first, where it is not the library's.
        """
        self.train, self.config, self.prune, self.size, self.seed = train, config, prune, size, seed
        self.pictures = pictures or Pictures(train, size, pick_device())
        self.make = make or partial(make_network, config.model, len(train.info.classes), size)
        self.make_proxy = make_proxy or partial(small_network, len(train.info.classes), size)
        self.forward = self.backward = 0

    def find(self, needs: Collection[str]) -> Preliminary:
        """Make those scores that are among a method's needs, and count what they cost.

        Raises:
            InputError: A score that no preliminary run makes.
        """
        runs = {"el2n": self.el2n, "forgetting": self.forgetting, "proxy": self.proxy}
        scores, started = {}, time.monotonic()
        for name in needs:
            if name in ("semantics", "validation"):
                continue
            if name not in runs:
                raise InputError(
                    f"method {self.prune.method!r} must need semantics, validation or a score out of "
                    f"{', '.join(runs)}, got {name!r}"
                )
            log.info("%s seed %d: a preliminary run finds the score %r", self.prune.method, self.seed, name)
            scores[name] = runs[name]()
        if not scores:
            return Preliminary()
        seconds = round(time.monotonic() - started, 3)
        cost = {"forward_samples": self.forward, "backward_samples": self.backward, "seconds": seconds}
        return Preliminary(scores, cost)

    def trainer(self, network: nn.Module, seed: int) -> Trainer:
        """A trainer for a network of this data."""
        return Trainer(network, self.train, self.size, self.config, seed, self.pictures)

    def learn(
        self,
        trainer: Trainer,
        epoch: int,
        epochs: int,
        objective: Callable[[Tensor, Tensor, Tensor], Tensor],
        batches: list[npt.NDArray[np.int64]] | None = None,
    ) -> None:
        """Train for one epoch of an ordinary run of so many, on all samples unless told."""
        if batches is None:
            batches = trainer.batches(np.ones(len(self.train), dtype=bool), epoch)
        rates = [learning_rate(self.config, epochs, epoch + (i + 0.5) / len(batches)) for i in range(len(batches))]
        result = trainer.epoch(batches, epoch, iter(rates), objective)
        self.forward += result.samples
        self.backward += result.samples

    def el2n(self) -> npt.NDArray[np.float32]:
        """Mean error length over networks that were trained for a tenth of an ordinary run, float32 (N,)."""
        error_N = np.zeros(len(self.train))
        for network in range(EL2N_NETWORKS):
            seed = stream_seed("el2n", self.seed, network)
            trainer = self.trainer(self.make(seed), seed)
            for epoch in range(max(1, round(EL2N_EPOCHS * self.prune.epochs))):
                self.learn(trainer, epoch, self.prune.epochs, lambda _index, loss_B, _logits: loss_B.mean())
            error_N += el2n(predict_pictures(trainer.network, self.pictures), self.train.label)
            self.forward += len(self.train)
        return (error_N / EL2N_NETWORKS).astype(np.float32)

    def forgetting(self) -> npt.NDArray[np.float32]:
        """Forgetting events of an ordinary run, float32 (N,)."""
        seed, events = stream_seed("forgetting", self.seed), ForgettingEvents(len(self.train))
        trainer = self.trainer(self.make(seed), seed)
        seen: list[tuple[Tensor, Tensor]] = []

        def objective(index_B: Tensor, loss_B: Tensor, logits_BC: Tensor) -> Tensor:
            seen.append((index_B, logits_BC.detach().argmax(1) == trainer.label_N[index_B]))
            return loss_B.mean()

        for epoch in range(self.prune.epochs):
            self.learn(trainer, epoch, self.prune.epochs, objective)
            for index_B, right_B in seen:
                events.record(as_array(index_B), as_array(right_B))
            seen.clear()
        return events.score()

    def proxy(self) -> npt.NDArray[np.bool_]:
        """Marks of a small network for every epoch of the run itself, bool (E, N).

        It meets the same pictures in the same order and with the same augmentation, in batches of which the fraction
        `keep` is as large as one of the run's; the highest losses of each are marked, and it learns from those alone
        (airbench96, arXiv 2404.00498, where it does so in every fourth batch only).
        """
        size, batch_size, keep = len(self.train), self.config.batch_size, self.prune.keep
        steps = pruning_steps(self.prune, size, batch_size, self.config.warmup_epochs)
        epochs = self.config.warmup_epochs + math.ceil(steps / max(1, round(keep * size) // batch_size))
        trainer, marks_EN = self.trainer(self.make_proxy(self.seed), self.seed), np.zeros((epochs, size), dtype=bool)
        for epoch in range(epochs):
            order = shuffled(self.train.key, "order", self.seed, epoch)
            batches = np.array_split(order, max(1, round(keep * size / batch_size)))
            counts = iter(mark_counts([len(batch) for batch in batches], keep))
            marked: list[Tensor] = []

            def objective(
                index_B: Tensor, loss_B: Tensor, _: Tensor, counts: Any = counts, marked: Any = marked
            ) -> Tensor:
                hardest = loss_B.detach().topk(next(counts)).indices
                marked.append(index_B[hardest])
                return loss_B[hardest].mean()

            self.learn(trainer, epoch, epochs, objective, batches)
            marks_EN[epoch, np.concatenate([as_array(index) for index in marked])] = True
        return marks_EN


def find_once(scout: Scout, needs: Collection[str], store: CheckpointStore) -> Preliminary:
    """Make the scores that a method needs, or take those that an earlier attempt at this work has made.

    Of several processes the first one makes them, and tells the others.
    """
    file = f"preliminary-seed-{scout.seed}"
    state = store.load(file)
    if state is not None:
        return Preliminary({name: as_array(score) for name, score in state["scores"].items()}, state["cost"])
    found = scout.find(needs) if place()[0] == 0 else Preliminary()
    if found.scores:
        store.save(file, {"scores": found.scores, "cost": found.cost})
    if place()[1] == 1:
        return found
    told = load(from_first(dump(vars(found))) or b"", file)
    return Preliminary({name: as_array(score) for name, score in told["scores"].items()}, told["cost"])


def learning_rate(config: TrainConfig, epochs: int, at: float) -> float:
    """The rate of an ordinary run after `at` of its epochs: up in half of the warm-up, and down to zero after it."""
    warm = config.warmup_epochs
    return config.learning_rate * min(1.0, 2 * at / warm, (epochs - at) / max(1, epochs - warm))


def small_network(classes: int, size: int, seed: int) -> Classifier:
    """Half the width of `convnet`, with weights of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("initialisation", "proxy", seed))
        return Classifier(ConvNet(classes, PROXY_WIDTH), size)
