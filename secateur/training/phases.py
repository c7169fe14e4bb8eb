"""What happens epoch by epoch in the warm-up, while data are pruned, and in retraining; and the driver of them all."""

import logging
import time
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.distributed import from_first
from secateur.pruning.method import CODE, Reason
from secateur.pruning.objective import Objective
from secateur.pruning.pruner import Pruner
from secateur.training.checkpoint import CheckpointStore
from secateur.training.config import TrainConfig
from secateur.training.seed import Seed
from secateur.training.shards import ShardedTrainer

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 20.0


class Phase(Protocol):
    """Training that goes on epoch by epoch and can be stopped between them."""

    name: str
    work: Seed

    @property
    def done(self) -> bool:
        """Whether it is over."""

    def epoch(self) -> dict[str, Any]:
        """Train for an epoch, and give its entry in the history."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on at the next epoch."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


def drive(phase: Phase, store: CheckpointStore) -> None:
    """Run a phase to its end, from where an earlier attempt left it, saving the state now and then."""
    file = phase.name.replace(" ", "-")
    state = store.load(file)
    if state is not None:
        phase.load_state_dict(state)
        log.info("%s goes on after epoch %d", phase.name, len(phase.work.history))
    saved = time.monotonic()
    while not phase.done:
        entry = phase.epoch()
        text = f"epoch {entry['epoch'] + 1}: {entry['kept']:.1%} of the samples, loss {entry['train_loss']:.3f}"
        if entry["validation_accuracy"] is not None:
            text += f", validation accuracy {entry['validation_accuracy']:.1%}"
        # With the epochs themselves, for whoever listens: see secateur.records.tracking.live.
        log.info("%s, %s", phase.name, text, extra={"curve": (phase.work.trainer.seed, phase.work.history)})
        if from_first(b"due" if time.monotonic() - saved > CHECKPOINT_SECONDS else None):
            store.save(file, phase.state_dict())
            saved = time.monotonic()
    store.save(file, phase.state_dict())


def pruning_steps(config: PruneConfig, samples: int, batch_size: int, warmup_epochs: int) -> int:
    """Steps after the warm-up, the same for every method at one `keep`: equal budget means equal steps and batches."""
    return max(1, round((config.epochs - warmup_epochs) * samples / batch_size * config.keep))


class WarmUp:
    """A few epochs on all samples, with a learning rate that climbs in the first half and stays at its peak.

    Nothing here depends on what comes later, so that one warm-up serves all methods and ratios.
    """

    def __init__(self, work: Seed, config: TrainConfig) -> None:
        self.name, self.work, self.config = f"warm-up seed {work.trainer.seed}", work, config
        self.everything_N = np.ones(len(work.trainer.table), dtype=bool)

    @property
    def done(self) -> bool:
        """Whether all epochs are over."""
        return len(self.work.history) >= self.config.warmup_epochs

    def epoch(self) -> dict[str, Any]:
        """Train on everything once."""
        started, number, trainer = time.monotonic(), len(self.work.history), self.work.trainer
        batches = trainer.batches(self.everything_N, number)
        ramp = max(1, len(batches) * self.config.warmup_epochs // 2)
        first = number * len(batches)
        rates = [self.config.learning_rate * min(1.0, (first + i + 1) / ramp) for i in range(len(batches))]
        result = trainer.epoch(batches, number, iter(rates), self.objective)
        self.work.losses.settle()
        return self.work.note("warm-up", 1.0, result, rates[-1], time.monotonic() - started)

    def objective(self, index_B: Tensor, loss_B: Tensor, logits_BC: Tensor) -> Tensor:
        """The plain mean; the losses are noted."""
        self.work.losses.record(index_B, loss_B)
        return loss_B.mean()

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on at the next epoch."""
        return self.work.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.work.load_state_dict(state)


class Pruning:
    """Epochs on the samples that a method chooses, with a learning rate that falls to zero as the budget is spent."""

    def __init__(self, work: Seed, pruner: Pruner, config: PruneConfig) -> None:
        self.name, self.work, self.pruner = f"{config.method} seed {pruner.seed}", work, pruner
        warmup_epochs = len(work.history)
        pruner.samples = replace(pruner.samples, losses=work.losses)
        self.total_steps = pruning_steps(config, len(pruner.samples), work.trainer.config.batch_size, warmup_epochs)
        self.steps = 0
        self.objective = Objective(pruner)
        if self.objective.steps and isinstance(work.trainer, ShardedTrainer):
            raise InputError(
                f"method {config.method!r} must run in one process, not deterministic: it learns at each step"
            )
        for epoch in range(warmup_epochs):
            pruner.warm_up(epoch)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.steps >= self.total_steps

    def epoch(self) -> dict[str, Any]:
        """Let the method choose, train on its choice, and note how it went."""
        started, number, trainer = time.monotonic(), len(self.work.history), self.work.trainer
        chosen = self.pruner.next_epoch(number, self.steps / self.total_steps, self.work.validation_loss)
        batches = trainer.batches(chosen.active_N, number)[: self.total_steps - self.steps]
        rates = [trainer.config.learning_rate * (1 - (self.steps + i) / self.total_steps) for i in range(len(batches))]
        result = trainer.epoch(batches, number, iter(rates), self.objective)
        self.steps += result.steps
        kept = float(chosen.active_N.mean())
        return self.work.note(chosen.phase, kept, result, rates[-1], time.monotonic() - started)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on at the next epoch."""
        return {"work": self.work.state_dict(), "pruner": self.pruner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.work.load_state_dict(state["work"])
        self.pruner.load_state_dict(state["pruner"])
        self.steps = int(state["steps"])


class Retraining:
    """A new network on the kept samples alone, with the learning-rate course of a whole run: it climbs, then falls.

    The run has the steps that warm-up and pruning would have with `keep` of the samples, whatever share the mask has.
    The mask stays that of the pruning. Relabelled samples are trained towards their soft label here too. With all
    samples kept this is ordinary training from the start, to the last bit.
    """

    def __init__(self, work: Seed, pruner: Pruner, config: PruneConfig, history: list[dict[str, Any]]) -> None:
        """Get ready.

        Args:
            work: A new network of the same seed, with its data.
            pruner: After pruning.
            config: Kept fraction and epochs.
            history: Of warm-up and pruning, whose cost counts.

        Raises:
            InputError: The mask keeps no sample.
        """
        self.name, self.work = f"retraining seed {pruner.seed}", work
        work.history = list(history)
        verdict = pruner.verdict()
        if not verdict.kept_N.any():
            raise InputError(f"retrain must have samples that the mask keeps, got none of {len(verdict.kept_N)}")
        self.kept_N, device = verdict.kept_N, work.trainer.device
        relabelled_N = verdict.reason_N == CODE[Reason.RELABELLED]
        self.relabelled_N = torch.from_numpy(relabelled_N).to(device) if relabelled_N.any() else None
        semantics = pruner.samples.semantics
        if self.relabelled_N is not None:
            assert semantics is not None
            assert semantics.posterior_NC is not None
            self.target_NC = torch.from_numpy(semantics.posterior_NC).to(device)
        train, samples = work.trainer.config, len(self.kept_N)
        self.climb = train.warmup_epochs * (round(config.keep * samples) // train.batch_size)
        self.fall = pruning_steps(config, samples, train.batch_size, train.warmup_epochs)
        self.steps = self.epochs = 0

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.steps >= self.climb + self.fall

    def rate(self, step: int) -> float:
        """Learning rate of a step: it climbs in the first half of the warm-up, stays, and then falls to zero."""
        if step < self.climb:
            return self.work.trainer.config.learning_rate * min(1.0, (step + 1) / max(1, self.climb // 2))
        return self.work.trainer.config.learning_rate * (1 - (step - self.climb) / self.fall)

    def epoch(self) -> dict[str, Any]:
        """Train on the kept samples once."""
        started, trainer = time.monotonic(), self.work.trainer
        batches = trainer.batches(self.kept_N, self.epochs)[: self.climb + self.fall - self.steps]
        rates = [self.rate(self.steps + i) for i in range(len(batches))]
        result = trainer.epoch(batches, self.epochs, iter(rates), self.objective)
        if not np.isfinite(result.loss):
            raise InputError(f"loss must be finite, got {result.loss} in retraining; try a lower rate")
        self.steps += result.steps
        self.epochs += 1
        return self.work.note("retrain", float(self.kept_N.mean()), result, rates[-1], time.monotonic() - started)

    def objective(self, index_B: Tensor, loss_B: Tensor, logits_BC: Tensor) -> Tensor:
        """The plain mean, with the soft label's cross-entropy for relabelled samples."""
        if self.relabelled_N is not None:
            soft_B = functional.cross_entropy(logits_BC, self.target_NC[index_B].float(), reduction="none")
            loss_B = torch.where(self.relabelled_N[index_B], soft_B, loss_B)
        return loss_B.mean()

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on at the next epoch."""
        return {"work": self.work.state_dict(), "steps": self.steps, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.work.load_state_dict(state["work"])
        self.steps, self.epochs = int(state["steps"]), int(state["epochs"])
