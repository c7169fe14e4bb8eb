"""Random numbers that hang on a sample's id and on what they are for, never on a position or on an earlier draw.

Each use of chance (splits, label noise, order, augmentation, selection) has a stream of its own, named by words and
numbers. A number of a stream is a hash of the sample and the stream, so nothing has to be saved to resume, a subset of
the data meets the same numbers as the whole, and every process of a distributed run sees the same ones.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]


def sample_keys(sample_ids: Sequence[str]) -> Keys:
    """Hash sample ids to 64-bit keys, uint64 (N,)."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in sample_ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def stream_seed(*stream: str | int) -> int:
    """Hash the name of a stream to a seed in [0, 2^63).

    >>> stream_seed("order", 0) == stream_seed("order", 0) != stream_seed("order", 1)
    True
    """
    digest = hashlib.blake2b(repr(stream).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(key_N: Keys, *stream: str | int) -> Floats:
    """One number in [0, 1) for each sample of a stream, float64 (N,).

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over the sample's key and the stream's seed.
    """
    z = key_N ^ np.uint64(stream_seed(*stream))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(key_N: Keys, *stream: str | int) -> npt.NDArray[np.int64]:
    """Positions 0..N-1 in the random order of a stream; a subset's order is a subsequence of the whole's."""
    return np.argsort(uniform(key_N, *stream), kind="stable").astype(np.int64)
