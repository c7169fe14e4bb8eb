"""What the processes of a distributed run tell each other, so that all of them choose the same samples.

Each process trains on a share of the samples and knows the losses of those alone. They meet at the start of an epoch,
and where a state is saved or a mask is made; everything else each of them works out by itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from secateur.errors import InputError
from secateur.pruning.losses import PENDING, SampleLosses, as_array
from secateur.streams import Keys, mixed

Group = Any  # torch.distributed.ProcessGroup, which some builds of PyTorch lack


def place(group: Group | None = None) -> tuple[int, int]:
    """Rank and number of the processes; (0, 1) where torch.distributed is not in use."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def gather(values: npt.NDArray[np.float64], group: Group | None = None) -> list[npt.NDArray[np.float64]]:
    """The arrays of all processes in the order of their ranks; float64 (rows, any length), collective.

    They are filled up to one length on the way, on the CPU for gloo and on the current device for NCCL.
    """
    if place(group)[1] == 1:
        return [values]
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    lengths = [int(length) for length in all_gather(torch.tensor([values.shape[1]], device=device), group)]
    padded = torch.zeros(len(values), max(lengths), dtype=torch.float64)
    padded[:, : values.shape[1]] = torch.from_numpy(values)
    gathered = all_gather(padded.to(device), group)
    return [part[:, :length].cpu().numpy() for part, length in zip(gathered, lengths, strict=True)]


def all_gather(mine: Tensor, group: Group | None) -> list[Tensor]:
    """A tensor of every process; all are of one shape."""
    parts = [torch.empty_like(mine) for _ in range(place(group)[1])]
    dist.all_gather(parts, mine, group=group)  # type: ignore[no-untyped-call, unused-ignore]
    return parts


def from_first(content: bytes | None, group: Group | None = None) -> bytes | None:
    """The bytes that the first process has, or None where it has none, collective."""
    if place(group)[1] == 1:
        return content
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    length = torch.tensor([-1 if content is None else len(content)], device=device)
    dist.broadcast(length, group_src=0, group=group)
    if int(length) < 0:
        return None
    told = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if content and place(group)[0] == 0:
        told.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(told, group_src=0, group=group)
    return told.cpu().numpy().tobytes()


def shared_mean(value: float | None, group: Group | None = None) -> float | None:
    """The mean over the processes that have the number, collective; None if none has."""
    if place(group)[1] == 1:
        return value
    found = np.concatenate(gather(np.array([[np.nan if value is None else value]]), group))
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else None


def check_same(order: npt.NDArray[np.int64], key_N: Keys, group: Group | None = None) -> None:
    """Check that all processes are about to visit the same samples in the same order, collective.

    Raises:
        InputError: They are not.
    """
    if place(group)[1] == 1:
        return
    spots = np.arange(len(order), dtype=np.uint64)
    digest = int(np.bitwise_xor.reduce(mixed(key_N[order] + mixed(spots)))) >> 11  # what a float64 holds exactly
    if len({float(part[0, 0]) for part in gather(np.array([[float(digest)]]), group)}) > 1:
        raise InputError(
            "labels, sample_ids, seed, semantics and settings must be the same in every process, "
            "got processes that chose different samples"
        )


class SharedLosses(SampleLosses):
    """Losses of samples that several processes visit; `settle` is collective, and what it leaves is the same in all.

    With one process it is `SampleLosses`.
    """

    def __init__(self, samples: int, group: Group | None = None) -> None:
        super().__init__(samples)
        self.group = group

    def record(self, index_B: Any, loss_B: Any) -> None:
        """Note the losses of one batch of this process; see `SampleLosses.record`."""
        if place(self.group)[1] == 1:
            super().record(index_B, loss_B)
            return
        self._pending.append((index_B, loss_B.detach() if hasattr(loss_B, "detach") else loss_B))
        if len(self._pending) >= PENDING:
            self._pending = [self._together()]

    def settle(self) -> None:
        """Take up what was recorded, by all processes.

        Raises:
            InputError: In all of them, if one has a loss that is NaN or infinite, or a position outside the data set.
        """
        if place(self.group)[1] > 1:
            mine = np.stack([values.astype(np.float64) for values in self._together()])
            self._pending = [(part[0].astype(np.int64), part[1]) for part in gather(mine, self.group)]
        super().settle()

    def _together(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Positions and losses of all batches that wait, on the CPU."""
        if not self._pending:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        index, loss = zip(*((as_array(i), as_array(values)) for i, values in self._pending), strict=True)
        return np.concatenate(index), np.concatenate(loss)
