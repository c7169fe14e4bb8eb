"""One seed's training, which both steps drive epoch by epoch."""

from typing import Any

from torch import nn

from secateur.dataset import ImageTable
from secateur.dataset.loader import Pictures
from secateur.pruning.distributed import SharedLosses, place
from secateur.pruning.losses import SampleLosses
from secateur.training.config import TrainConfig
from secateur.training.loop import EpochResult, Trainer, scores
from secateur.training.models import make_network
from secateur.training.shards import ShardedTrainer


class Seed:
    """Network, data and history of one seed; the processes of a distributed run hold the same, and train together."""

    def __init__(
        self,
        table: ImageTable,
        config: TrainConfig,
        size: int,
        seed: int,
        network: nn.Module | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        """Get ready.

        Args:
            table: Training and validation rows.
            config: Model and optimisation.
            size: Pixels of a side.
            seed: Of initialisation, order, augmentation and dropout.
            network: Pictures to logits, where it is not the one that the config names.
            pictures: Of the training rows, where they have been read already.
        """
        train = table.part("train")
        network = network or make_network(config.model, len(table.info.classes), size, seed)
        shared = config.deterministic or place()[1] > 1
        make = ShardedTrainer if shared else Trainer
        self.trainer = make(network, train, size, config, seed, pictures)
        held_out = table.part("validation")
        self.validation = Pictures(held_out, size, self.trainer.device) if len(held_out) else None
        self.validation_label_V = held_out.label
        self.losses: SampleLosses = SharedLosses(len(train))
        self.history: list[dict[str, Any]] = []

    @property
    def validation_loss(self) -> float | None:
        """Of the last epoch."""
        return self.history[-1]["validation_loss"] if self.history else None

    def note(
        self, phase: str, kept: float, result: EpochResult, learning_rate: float, seconds: float
    ) -> dict[str, Any]:
        """Add an epoch to the history, with the loss and accuracy on the validation split."""
        loss = accuracy = None
        if self.validation is not None:
            loss, accuracy = scores(self.trainer.predict(self.validation), self.validation_label_V)
        before = self.history[-1] if self.history else {"samples": 0, "seconds": 0.0, "forward_samples": 0}
        entry = {
            "phase": phase,
            "epoch": len(self.history),
            "samples": before["samples"] + result.samples,
            "forward_samples": before["forward_samples"] + result.samples + len(self.validation_label_V),
            "kept": kept,
            "train_loss": result.loss,
            "train_accuracy": result.accuracy,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": learning_rate,
            "seconds": before["seconds"] + seconds,
        }
        self.history.append(entry)
        return entry

    def state_dict(self) -> dict[str, Any]:
        """Network, momenta, losses and history."""
        return {"trainer": self.trainer.state_dict(), "losses": self.losses.state_dict(), "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.trainer.load_state_dict(state["trainer"])
        self.losses.load_state_dict(state["losses"])
        self.history = state["history"]
