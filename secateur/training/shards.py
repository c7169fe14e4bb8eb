"""Training whose batches are cut into shards, which several processes share out.

Every shard goes forward and backward by itself, with batch norm over its own samples. Gradients and running statistics
are then summed over the shards. With a fixed number of shards, summed in a fixed order, all bits are the same however
many processes there are; otherwise each process has one shard, as in PyTorch's DistributedDataParallel.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.dataset.loader import Pictures, Positions
from secateur.errors import InputError
from secateur.pruning.distributed import check_same, gather, place
from secateur.streams import stream_seed
from secateur.training.config import SHARDS
from secateur.training.loop import EpochResult, Trainer, predict_batches, predict_order


def cut(index_B: Positions, shards: int) -> list[Positions]:
    """Cut a batch into shards that differ by one sample at most; those left over are empty.

    A shard has two samples or more, for batch norm, where the batch has as many.

    >>> [len(part) for part in cut(np.arange(7), 4)]
    [3, 2, 2, 0]
    """
    parts = np.array_split(index_B, min(shards, max(1, len(index_B) // 2)))
    return parts + [index_B[:0]] * (shards - len(parts))


def pairwise(parts: Iterable[Tensor]) -> Tensor:
    """Sum 2^n tensors by pairs, then pairs of pairs, and on; n + 1 of them are held at a time."""
    waiting: list[tuple[int, Tensor]] = []
    for part in parts:
        total, level = part, 0
        while waiting and waiting[-1][0] == level:
            total, level = waiting.pop()[1] + total, level + 1
        waiting.append((level, total))
    assert len(waiting) == 1
    return waiting[0][1]


def pairwise_across(mine: Tensor) -> Tensor:
    """Go on with `pairwise` over the 2^n processes; all get the same bits, as a sum of two has no order. Collective."""
    rank, size = place()
    step = 1
    while step < size:
        theirs, other = torch.empty_like(mine), rank ^ step
        swap = [dist.P2POp(dist.isend, mine, other), dist.P2POp(dist.irecv, theirs, other)]
        for request in dist.batch_isend_irecv(swap):
            request.wait()
        mine, step = mine + theirs, 2 * step
    return mine


class ShardedTrainer(Trainer):
    """A trainer for several processes, or for results that do not hang on how many there are."""

    def __init__(self, *arguments: Any) -> None:
        """Get ready; arguments are the trainer's.

        Raises:
            InputError: The number of processes does not fit the shards.
        """
        super().__init__(*arguments)
        rank, size = place()
        self.shards = SHARDS if self.config.deterministic else size
        if self.shards % size:
            raise InputError(f"processes must be a divisor of {SHARDS} where training is deterministic, got {size}")
        share = self.shards // size
        self.mine = range(rank * share, (rank + 1) * share)
        norms = [m for m in self.network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        self.running: list[Tensor] = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self.tracked: list[Tensor] = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]

    def epoch(
        self,
        batches: list[Positions],
        epoch: int,
        learning_rates: Iterator[float],
        objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> EpochResult:
        """Visit the batches once, with all processes; see `Trainer.epoch`. The objective is a mean over samples."""
        check_same(np.concatenate(batches), self.table.key)
        self.network.train()
        parts = [[cut(index_B, self.shards)[shard] for shard in self.mine] for index_B in batches]
        pictures = self.pictures.batches([part for step in parts for part in step if len(part)])
        told_2S = torch.zeros(2, len(self.mine), dtype=torch.float64, device=self.device)  # losses and right answers

        def shard(step: int, slot: int, before: list[Tensor]) -> Tensor:
            index_S, dropout = parts[step][slot], ("dropout", self.seed, epoch, step, self.mine[slot])
            if not len(index_S):
                return torch.zeros(sum(p.numel() for p in [*self.sgd.parameters, *before]), device=self.device)
            for buffer, old in zip(self.running, before, strict=True):
                buffer.copy_(old)
            torch.manual_seed(stream_seed(*dropout))
            position_S, loss_S, logits_SC = self.losses(index_S, next(pictures), epoch)
            told_2S[0, slot] += loss_S.detach().sum()
            told_2S[1, slot] += (logits_SC.detach().argmax(1) == self.label_N[position_S]).sum()
            weight = len(index_S) / len(batches[step])
            (objective(position_S, loss_S, logits_SC) * weight).backward()  # type: ignore[no-untyped-call]
            return self.collect(weight)

        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for step in range(len(batches)):
                before = [buffer.clone() for buffer in self.running]
                counts = [count + 1 for count in self.tracked]
                total = pairwise(shard(step, slot, before) for slot in range(len(self.mine)))
                self.spread(self.across(total), counts)
                self.sgd.step(next(learning_rates))
        loss, right = np.concatenate(gather(told_2S.cpu().numpy()), axis=1).sum(axis=1)
        samples = sum(len(index_B) for index_B in batches)
        return EpochResult(len(batches), samples, float(loss) / samples, int(right) / samples)

    def collect(self, weight: float) -> Tensor:
        """Take up a shard's gradients, and its running statistics by their weight, in one row."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.sgd.parameters]
        for parameter in self.sgd.parameters:
            parameter.grad = None
        return torch.cat([g.reshape(-1) for g in grads] + [weight * b for b in self.running])

    def across(self, mine: Tensor) -> Tensor:
        """Sum over the processes, in fixed order where that is asked for; collective."""
        if self.config.deterministic:
            return pairwise_across(mine)
        dist.all_reduce(mine)
        return mine

    def spread(self, total: Tensor, counts: list[Tensor]) -> None:
        """Put the sums where optimiser and batch norm look for them."""
        pieces = torch.split(total, [t.numel() for t in [*self.sgd.parameters, *self.running]])
        for parameter, piece in zip(self.sgd.parameters, pieces, strict=False):
            parameter.grad = torch.empty_like(parameter).copy_(piece.view_as(parameter))
        for buffer, piece in zip(self.running, pieces[len(self.sgd.parameters) :], strict=True):
            buffer.copy_(piece)
        for tracked, count in zip(self.tracked, counts, strict=True):
            tracked.copy_(count)

    def predict(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """Logits of all pictures in their order, in evaluation mode, float32 (N, C); the processes share them out."""
        rank, size = place()
        positions = predict_order(len(pictures.decoded))
        mine = predict_batches(self.network, pictures, positions[rank::size])
        flat = [part[0] for part in gather(np.concatenate([np.empty(0), *(part.ravel() for part in mine)])[None])]
        classes = sum(map(len, flat)) // len(pictures.decoded)
        logit_NC = np.empty((len(pictures.decoded), classes), dtype=np.float32)
        for other, row in enumerate(flat):
            theirs = positions[other::size]
            if theirs:
                logit_NC[np.concatenate(theirs)] = row.reshape(-1, classes)
        return logit_NC
