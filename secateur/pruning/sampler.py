"""The pruner as a sampler, for somebody's own training loop."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Sampler

from secateur.errors import InputError, require_range
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State
from secateur.pruning.mask import Mask
from secateur.pruning.method import Semantics
from secateur.pruning.objective import Objective
from secateur.pruning.pruner import Pruner
from secateur.streams import shuffled


class PruningSampler(Sampler[int]):
    """Yields the positions of each epoch's samples: all of them in the warm-up, then those that the method chooses.

    Each `iter()` begins an epoch, so give it to one DataLoader and go through that once an epoch. The data set must
    return each sample's position beside the sample, and the loop must call `update` for each batch. No global random
    state is touched.
    """

    def __init__(
        self,
        labels: Sequence[int] | npt.NDArray[Any],
        *,
        epochs: int,
        warmup_epochs: int = 5,
        keep: float = 0.7,
        method: str = "adaptive",
        seed: int = 0,
        sample_ids: Sequence[str] | None = None,
        semantics: Semantics | None = None,
        **settings: float,
    ) -> None:
        """Bind a method to a data set.

        Args:
            labels: Given labels of all samples, int (N,).
            epochs: Of the whole run, warm-up included.
            warmup_epochs: On all samples, at least 1.
            keep: Fraction kept, in (0, 1].
            method: A name out of `secateur methods`.
            seed: Of order and selection.
            sample_ids: Names of the samples that stay the same when the data set grows; their positions by default.
            semantics: What CLIP says, for the methods that need it.
            **settings: More fields of `PruneConfig`.

        Raises:
            InputError: A setting is outside its range, or the method lacks what it needs.
        """
        config = PruneConfig(method=method, keep=keep, epochs=epochs, **settings)
        require_range("warmup_epochs", warmup_epochs, 1, epochs - 1)
        self.pruner = Pruner(config, sample_ids, labels, seed=seed, semantics=semantics)
        self.objective = Objective(self.pruner)
        self.warmup_epochs = warmup_epochs
        self.epoch = 0  # of the next `iter`
        self.validation_loss: float | None = None  # set it after each epoch, for the methods that need it

    def __iter__(self) -> Iterator[int]:
        """Begin an epoch."""
        config, epoch = self.pruner.config, self.epoch
        if epoch >= config.epochs:
            raise InputError(f"epochs must be the number that the loop runs, got {config.epochs} and one more")
        if epoch < self.warmup_epochs:
            active_N = self.pruner.warm_up(epoch)
        else:
            done = (epoch - self.warmup_epochs) / (config.epochs - self.warmup_epochs)
            active_N = self.pruner.next_epoch(epoch, done, self.validation_loss).active_N
        self.epoch += 1
        order = shuffled(self.pruner.samples.key_N, "order", self.pruner.seed, epoch)
        return iter(order[active_N[order]].tolist())

    def __len__(self) -> int:
        """Samples in the epoch that has begun, or in the first; pruning methods change it from epoch to epoch."""
        trajectory = self.pruner.trajectory
        return int(trajectory[-1]["count"]) if trajectory else len(self.pruner.samples)

    def update(self, index_B: Tensor, loss_B: Tensor, logits_BC: Tensor | None = None) -> Tensor:
        """Note the plain loss of each sample of a batch, and give the loss to go backward from: their weighted mean.

        Args:
            index_B: Positions of the samples, int (B,).
            loss_B: Their losses, float (B,), with gradient.
            logits_BC: Their logits, float (B, C), for methods that train towards soft labels.

        Raises:
            InputError: The method relabels and there are no logits.
        """
        return self.objective(index_B, loss_B, logits_BC)

    def mask(self) -> Mask:
        """The kept set after the last selection, with the reason for each sample."""
        return self.pruner.mask()

    def state_dict(self) -> State:
        """Everything that is needed to go on at the next epoch."""
        return {"pruner": self.pruner.state_dict(), "epoch": self.epoch}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            InputError: The state is of another number of samples.
        """
        self.pruner.load_state_dict(state["pruner"])
        self.epoch = int(state["epoch"])
