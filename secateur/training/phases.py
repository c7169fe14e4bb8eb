"""What happens epoch by epoch in the warm-up, and what while data are pruned; and the driver of both."""

import logging
import time
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from secateur.pruning.config import PruneConfig
from secateur.pruning.objective import Objective
from secateur.pruning.pruner import Pruner
from secateur.training.checkpoint import CheckpointStore
from secateur.training.config import TrainConfig
from secateur.training.seed import Seed

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
        log.info("%s, %s", phase.name, text)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            store.save(file, phase.state_dict())
            saved = time.monotonic()
    store.save(file, phase.state_dict())


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
        pruner.samples.losses.load_state_dict(work.losses.state_dict())
        work.losses = pruner.samples.losses
        ordinary_steps = (config.epochs - warmup_epochs) * len(pruner.samples) / work.trainer.config.batch_size
        # The same number of steps for every method at one `keep`: equal budget means equal steps and equal batches.
        self.total_steps = max(1, round(ordinary_steps * config.keep))
        self.steps = 0
        self.objective = Objective(pruner)
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
