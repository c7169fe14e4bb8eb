"""The pruner as a sampler, for somebody's own training loop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from secateur.errors import InputError, require_range
from secateur.pruning.config import PruneConfig
from secateur.pruning.distributed import Group, SharedLosses, check_same, place, shared_mean
from secateur.pruning.losses import State, as_array, as_tensors
from secateur.pruning.mask import Mask
from secateur.pruning.method import Semantics
from secateur.pruning.objective import Objective
from secateur.pruning.pruner import Pruner
from secateur.pruning.selection import Bools
from secateur.streams import shuffled

CHUNK = 4096
LOOKS = 3  # times that an epoch may be begun before a batch of it is told


class PruningSampler(Sampler[int]):
    """Yields the positions of each epoch's samples: all of them in the warm-up, then those that the method chooses.

    Each `iter()` begins an epoch, so give it to one DataLoader and go through that once an epoch. The data set must
    return each sample's position beside the sample, and the loop must call `update` for each batch: that, and not what
    workers have fetched ahead, counts as visited. A second `iter()` before the first `update` begins the same epoch
    again. No global random state is touched.

    Under torch.distributed all processes choose the same samples and each yields every world_size-th of them, so their
    epochs are equally long. `iter`, `begin_epoch`, `state_dict` and `mask` are then collective: call them in all.
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
        scores: Mapping[str, npt.NDArray[Any]] | None = None,
        batch_size: int | None = None,
        group: Group | None = None,
        **settings: Any,
    ) -> None:
        """Bind a method to a data set.

        Args:
            labels: Given labels of all samples, int (N,). Where there are no classes, groups or zeros do.
            epochs: Of the whole run, warm-up included.
            warmup_epochs: On all samples, in [0, epochs); with 0, the first choice is made without losses.
            keep: Fraction kept, in (0, 1].
            method: A name out of `secateur methods`.
            seed: Of order and selection.
            sample_ids: Names of the samples that stay the same when the data set grows; their positions by default.
            semantics: What CLIP says, for the methods that need it.
            scores: What a preliminary run found, by name, for the methods that need it.
            batch_size: Of a DataLoader with `drop_last`: epochs are then cut to whole batches.
            group: Processes that share the data set; all of torch.distributed by default, where that is in use.
            **settings: More fields of `PruneConfig`.

        Raises:
            InputError: A setting is outside its range, or the method lacks what it needs.
        """
        config = PruneConfig(method=method, keep=keep, epochs=epochs, **settings)
        require_range("warmup_epochs", warmup_epochs, 0, epochs - 1)
        require_range("batch_size", batch_size or 1, 1)
        self.pruner = Pruner(config, sample_ids, labels, seed=seed, semantics=semantics, scores=scores)
        self.losses = SharedLosses(len(self.pruner.samples), group)
        self.pruner.samples = replace(self.pruner.samples, losses=self.losses)
        self.objective = Objective(self.pruner)
        self.warmup_epochs, self.batch_size, self.group = warmup_epochs, batch_size or 1, group
        self.validation_loss: float | None = None  # set it after each epoch, for the methods that need it
        self._visits_N: npt.NDArray[np.uint16] | None = None  # at the start of the epoch that has begun
        self._told = 0  # visits in all when it began, or was restored
        self._moved = False  # whether `update` was called since
        self._next = self._looks = 0

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next `iter` begins or goes on with: `range(sampler.epoch, epochs)` resumes."""
        return self._next if self._visits_N is None or self._moved else self._next - 1

    def __iter__(self) -> Iterator[int]:
        """Begin an epoch, or go on with the one that was restored."""
        self.begin_epoch()
        rank, size = place(self.group)
        share = self._order()[rank::size]
        return in_chunks(share[~self._consumed()[share]])

    def begin_epoch(self) -> None:
        """Choose the samples of the next epoch, for loops that ask for their number before `iter`, which does the same.

        Raises:
            InputError: A loss was NaN or infinite, `update` was not called, or all epochs are over.
        """
        self.losses.settle()
        told = int(self.losses.visits_N.sum(dtype=np.int64))
        left = self._visits_N is not None and self._left()
        if left and told == self._told:
            self._looks += 1
            if self._looks > LOOKS:
                raise InputError(f"update must be called for each batch, got none in {LOOKS} passes over the samples")
            return
        self._choose()
        self._visits_N, self._told = self.losses.visits_N.copy(), told
        self._moved, self._looks, self._next = False, 0, self._next + 1

    def _choose(self) -> None:
        config, epoch = self.pruner.config, self._next
        if epoch >= config.epochs:
            raise InputError(f"epochs must be the number that the loop runs, got {config.epochs} and one more")
        size = place(self.group)[1]
        if size > 1 and self.objective.steps:
            raise InputError(f"method {config.method!r} must run in one process, as it learns at each step, got {size}")
        if epoch < self.warmup_epochs:
            self.pruner.warm_up(epoch)
        else:
            done = (epoch - self.warmup_epochs) / (config.epochs - self.warmup_epochs)
            self.pruner.next_epoch(epoch, done, shared_mean(self.validation_loss, self.group))
        order, whole = self._order(), size * self.batch_size
        if len(order) < whole:
            raise InputError(f"keep must leave {whole} samples or more (processes times batch_size), got {len(order)}")
        order = order[: len(order) // whole * whole]
        check_same(order, self.pruner.samples.key_N, self.group)
        active_N = np.zeros(len(self.pruner.samples), dtype=bool)
        active_N[order] = True
        self.pruner.trajectory[-1] |= {"count": len(order), "active": np.packbits(active_N)}

    def _active(self) -> Bools:
        """Samples of the epoch that has begun, over all processes, bool (N,)."""
        bits = self.pruner.trajectory[-1]["active"]
        return np.unpackbits(bits, count=len(self.pruner.samples)).astype(bool)

    def _order(self) -> npt.NDArray[np.int64]:
        """Positions of the epoch that has begun, in order, over all processes."""
        order = shuffled(self.pruner.samples.key_N, "order", self.pruner.seed, self.pruner.trajectory[-1]["epoch"])
        return order[self._active()[order]]

    def _consumed(self) -> Bools:
        """Samples told since the epoch began, bool (N,)."""
        assert self._visits_N is not None
        return np.asarray(self.losses.visits_N != self._visits_N)

    def _left(self) -> bool:
        """Whether samples of the epoch that has begun have not been told.

        Raises:
            InputError: One was told that is not of this epoch.
        """
        active_N, consumed_N = self._active(), self._consumed()
        stray = np.flatnonzero(consumed_N & ~active_N)
        if len(stray):
            raise InputError(f"index must be positions that the sampler gave in this epoch, got {stray[0]}")
        return bool((active_N & ~consumed_N).any())

    def __len__(self) -> int:
        """Samples of this process in the epoch that has begun, or in the first; it changes from epoch to epoch."""
        trajectory, size = self.pruner.trajectory, place(self.group)[1]
        whole = size * self.batch_size
        count = int(trajectory[-1]["count"]) if trajectory else len(self.pruner.samples) // whole * whole
        return count // size

    def update(self, index_B: Tensor, loss_B: Tensor, logits_BC: Tensor | None = None) -> Tensor:
        """Note the plain loss of each sample of a batch, and give the loss to go backward from: their weighted mean.

        Args:
            index_B: Positions of the samples, int (B,).
            loss_B: Their losses, float (B,), with gradient.
            logits_BC: Their logits, float (B, C), for methods that train towards soft labels.

        Raises:
            InputError: Positions that are not whole numbers, not one loss for each, or no logits where the method
                relabels. What is NaN, infinite or outside the data set is found when the next epoch begins.
        """
        index_B = torch.as_tensor(index_B)
        if index_B.is_floating_point() or index_B.dtype == torch.bool:
            raise InputError(f"index must be whole numbers, the positions of the samples, got {index_B.dtype}")
        if loss_B.ndim != 1 or index_B.shape != loss_B.shape:
            raise InputError(
                "loss must be one number for each position (reduction='none'), "
                f"got shape {tuple(loss_B.shape)} for {tuple(index_B.shape)}"
            )
        self._moved = True
        return self.objective(index_B, loss_B, logits_BC)

    def mask(self) -> Mask:
        """The kept set after the last selection, with the reason for each sample."""
        return self.pruner.mask()

    @property
    def alarms(self) -> list[str]:
        """What a person should know about the selection."""
        return self.pruner.alarms

    def state_dict(self) -> State:
        """Everything that is needed to go on, also in the midst of an epoch; the same in all processes.

        It holds tensors, numbers and texts alone, for `torch.load` with `weights_only`.
        """
        self.losses.settle()
        within = self._visits_N is not None and self._left()
        state = {
            "pruner": self.pruner.state_dict(),
            "next": self._next,
            "consumed": np.packbits(self._consumed()) if within else None,
            "world_size": place(self.group)[1],
            "validation_loss": self.validation_loss,
        }
        plain: State = as_tensors(state)
        return plain

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state: with the rest of its epoch, if it was saved in the midst of one.

        Raises:
            InputError: The state is of other samples or labels, another method, keep or seed, or, in the midst of an
                epoch, of another number of processes.
        """
        size = place(self.group)[1]
        if state["consumed"] is not None and state["world_size"] != size:
            raise InputError(
                f"world_size must be {state['world_size']} to go on in the midst of an epoch, got {size}; "
                "a state saved between epochs fits any"
            )
        self.pruner.load_state_dict(state["pruner"])
        self._next, self.validation_loss = int(state["next"]), state["validation_loss"]
        visits_N = self.losses.visits_N
        self._told, self._moved, self._looks = int(visits_N.sum(dtype=np.int64)), False, 0
        self._visits_N = None
        if state["consumed"] is not None:
            self._visits_N = visits_N - np.unpackbits(as_array(state["consumed"]), count=len(visits_N))


def in_chunks(positions: npt.NDArray[np.int64]) -> Iterator[int]:
    """Python's numbers for an array, a few at a time: all at once they take five times the memory."""
    for start in range(0, len(positions), CHUNK):
        yield from positions[start : start + CHUNK].tolist()
