"""Ranks and the projection to a kept set, for samples that lie in shards on several processes.

No process ever holds more than its own samples: what they tell each other are histograms of fixed size, and the result
is that of `secateur.pruning.selection` on all samples together, to the bit. Each function is a conversation: a
generator that yields what is to be summed (or the largest be taken of) over the processes, gets that, and returns this
process's part of the result. `meet` holds it over torch.distributed, `in_turns` for all shards within one process.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from secateur.pruning.distributed import Group
from secateur.pruning.selection import LEVELS, TIES, Bools, Ints, Singles, Values, class_counts
from secateur.streams import Keys, uniform

Counts: TypeAlias = npt.NDArray[np.int64]
Bits: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
T = TypeVar("T")
Talk: TypeAlias = Generator[tuple[Literal["sum", "max"], Counts], Counts, T]

DIGIT, CLASS_DIGIT = 16, 8  # bits by which a threshold is found, for all samples and for each class
NONE = -(2**62)


def ordered(value_N: Values) -> Bits:
    """The bits of floats as whole numbers in the same order, uint32 or uint64 (N,).

    >>> np.argsort(ordered(np.array([2.0, -1.0, 0.5, -3.0]))).tolist()
    [3, 1, 2, 0]
    """
    bits_N: Bits = np.ascontiguousarray(value_N).view(np.uint32 if value_N.dtype == np.float32 else np.uint64)
    top_bit = bits_N.dtype.type(2 ** (8 * bits_N.itemsize - 1))
    return np.where(bits_N >= top_bit, ~bits_N, bits_N | top_bit)


def rank(value_N: Values) -> Talk[Singles]:
    """Rank over the samples of all shards, float32 (N,) in [0, 1]; more than 65,536 of them in all.

    Args:
        value_N: Of this shard.
    """
    bits_N = ordered(value_N.astype(np.float32, copy=False)).astype(np.int64)
    ends = [-bits_N.min(), bits_N.max()] if len(bits_N) else [NONE, NONE]
    low, high = (yield "max", np.array(ends, dtype=np.int64)) * (-1, 1)
    bits_N -= low
    bits_N >>= max(0, int(high - low).bit_length() - 16)
    count_L = yield "sum", np.bincount(bits_N, minlength=LEVELS)
    middle_L = np.cumsum(count_L) - 0.5 * (count_L + 1)
    return np.asarray((middle_L / (count_L.sum() - 1)).astype(np.float32)[bits_N])


def project(
    score_N: Values,
    count: int,
    label_N: Ints,
    key_N: Keys,
    accepted_N: Bools | None = None,
    floor: float = 0.0,
    *,
    classes: int,
    place: tuple[int, int],
) -> Talk[tuple[Bools, Bools]]:
    """Choose exactly `count` samples of all shards; see `secateur.pruning.selection.project`.

    Args:
        score_N: Of this shard, as are the other arrays.
        count: Samples to keep, of all shards.
        label_N: Given labels.
        key_N: Random-stream keys of the samples.
        accepted_N: What the gate lets through; None for all.
        floor: Fraction of the kept fraction that every class is left with at least.
        classes: Number of classes.
        place: Rank of this shard, and number of shards.
    """
    sizes = [class_counts(label_N, member_N, classes) for member_N in (None, accepted_N)]
    size_C, able_C = np.split((yield "sum", np.concatenate(sizes)), 2)
    count = min(count, int(able_C.sum()))
    if accepted_N is not None:
        score_N = np.where(accepted_N, score_N, score_N.dtype.type(-np.inf))

    def first(i: Counts) -> Bits:
        return np.asarray(~ordered(score_N[i] + score_N.dtype.type(0)))  # the highest; -0 is 0

    def then(i: Counts) -> Bits:
        return ordered(uniform(key_N[i], TIES))

    samples, everyone, none_N = len(score_N), np.arange(len(score_N)), np.zeros(len(score_N), dtype=bool)
    plain_N = yield from choose(everyone, samples, (first, then), np.array([count]), None, place)
    if floor == 0:
        return plain_N, none_N
    quota_C = np.floor(floor * (count / int(size_C.sum())) * size_C).astype(np.int64)
    kept_C = yield "sum", class_counts(label_N, plain_N, classes)
    if (kept_C >= quota_C).all():
        return plain_N, none_N
    quota_C = np.minimum(quota_C, able_C)
    owed_N = yield from choose(everyone, samples, (first, then), quota_C, label_N, place)
    count -= int(quota_C.sum())
    kept_N = owed_N | (
        yield from choose(np.flatnonzero(~owed_N), samples, (first, then), np.array([count]), None, place)
    )
    return kept_N, kept_N & ~plain_N


def choose(
    among: Counts,
    samples: int,
    order: Sequence[Callable[[Counts], Bits]],
    count_G: Counts,
    group_N: Ints | None,
    place: tuple[int, int],
) -> Talk[Bools]:
    """Choose so many samples of each group, those that come first, bool (N,).

    Digit by digit, from the highest, histograms over all shards tell which value of it is the last to come in; samples
    with lower ones are in, those with that one are looked at by the next digit.

    Args:
        among: Positions of the samples that may be chosen, in order.
        samples: N, of this shard.
        order: From positions to whole numbers; the first decides, then the next; then the shard and the position.
        count_G: How many, of all shards; all, where there are fewer.
        group_N: Group of every sample of the shard; None for one.
        place: Rank of this shard, and number of shards.
    """
    mine_N, need_G = np.zeros(samples, dtype=bool), count_G.copy()
    left, digit = among, DIGIT if group_N is None else CLASS_DIGIT
    for look in order:
        bits = look(left)
        for shift in range(8 * bits.itemsize - digit, -1, -digit):
            value = (bits >> bits.dtype.type(shift)).astype(np.int64) & (2**digit - 1)
            group = 0 if group_N is None else group_N[left].astype(np.int64)
            seen_GV = yield "sum", np.bincount(value + 2**digit * group, minlength=len(need_G) << digit)
            up_to_GV = seen_GV.reshape(len(need_G), -1).cumsum(axis=1)
            last_G = (up_to_GV < need_G[:, None]).sum(axis=1)
            bounded_GV = np.pad(up_to_GV, ((0, 0), (1, 1)), mode="edge")
            bounded_GV[:, 0] = 0
            each = np.arange(len(need_G))
            need_G -= bounded_GV[each, last_G]
            whole_G = need_G == bounded_GV[each, last_G + 1] - bounded_GV[each, last_G]
            enters = (value < last_G[group]) | ((value == last_G[group]) & whole_G[group])
            mine_N[left[enters]] = True
            need_G[whole_G] = 0
            stays = (value == last_G[group]) & (need_G > 0)[group]
            left, bits = left[stays], bits[stays]
            if not need_G.any():
                return mine_N
    return mine_N | (yield from first_come(left, samples, need_G, group_N, place))


def first_come(left: Counts, samples: int, need_G: Counts, group_N: Ints | None, place: tuple[int, int]) -> Talk[Bools]:
    """Choose so many samples of each group by shard and position: their ids are equal, so nothing else is left."""
    rank, shards = place
    group = np.zeros(len(left), dtype=np.int64) if group_N is None else group_N[left].astype(np.int64)
    there_SG = np.zeros((shards, len(need_G)), dtype=np.int64)
    there_SG[rank] = np.bincount(group, minlength=len(need_G))
    there_SG = (yield "sum", there_SG.ravel()).reshape(there_SG.shape)
    mine_N = np.zeros(samples, dtype=bool)
    for g in np.flatnonzero(need_G):
        mine_N[left[group == g][: max(0, int(need_G[g] - there_SG[:rank, g].sum()))]] = True
    return mine_N


def meet(talk: Talk[T], group: Group | None = None) -> T:
    """Hold a conversation over torch.distributed, collective; gives this process's part of the result."""
    import torch
    import torch.distributed as dist

    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    operations = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}
    try:
        kind, mine = next(talk)
        while True:
            told = torch.from_numpy(mine).to(device)
            dist.all_reduce(told, op=operations[kind], group=group)
            kind, mine = talk.send(told.cpu().numpy())
    except StopIteration as end:
        result: T = end.value
        return result


def in_turns(talks: Sequence[Talk[T]]) -> list[T]:
    """Hold a conversation of all shards within this process; gives their parts of the result, in order."""
    results: dict[int, T] = {}
    told: Counts | None = None
    while len(results) < len(talks):
        said = []
        for place, talk in enumerate(talks):
            try:
                said.append(next(talk) if told is None else talk.send(told))
            except StopIteration as end:
                results[place] = end.value
        if said:
            stacked = np.stack([mine for _, mine in said])
            told = stacked.sum(axis=0) if said[0][0] == "sum" else stacked.max(axis=0)
    return [results[place] for place in range(len(talks))]
