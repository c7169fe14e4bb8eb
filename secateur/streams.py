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


def sample_keys(sample_ids: Sequence[str] | npt.NDArray[np.integer]) -> Keys:
    """Hash sample ids, texts or an array of whole numbers, to 64-bit keys, uint64 (N,)."""
    if isinstance(sample_ids, np.ndarray) and sample_ids.dtype.kind in "iu":
        return mixed(sample_ids.astype(np.uint64))
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in sample_ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def stream_seed(*stream: str | int) -> int:
    """Hash the name of a stream to a seed in [0, 2^63).

    >>> stream_seed("order", 0) == stream_seed("order", 0) != stream_seed("order", 1)
    True
    """
    digest = hashlib.blake2b(repr(stream).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def mixed(z_N: Keys) -> Keys:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which is one to one."""
    z_N = z_N.copy()
    shifted_N = np.empty_like(z_N)  # new memory for every term would cost more than the arithmetic
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z_N ^= np.right_shift(z_N, np.uint64(shift), out=shifted_N)
        z_N *= np.uint64(factor)
    return z_N


def uniform(key_N: Keys, *stream: str | int) -> Floats:
    """One number in [0, 1) for each sample of a stream, float64 (N,): a hash of the sample's key and the stream."""
    bits_N = mixed(key_N ^ np.uint64(stream_seed(*stream)))
    bits_N >>= np.uint64(11)
    u_N = bits_N.astype(np.float64)
    u_N *= 2.0**-53
    return u_N


def shuffled(key_N: Keys, *stream: str | int) -> npt.NDArray[np.int64]:
    """Positions 0..N-1 in the random order of a stream; a subset's order is a subsequence of the whole's."""
    u_N = uniform(key_N, *stream)
    order = np.argsort(u_N)  # vectorised where the CPU can, and then not stable
    in_order = u_N[order]
    if (in_order[1:] == in_order[:-1]).any():
        order = np.argsort(u_N, kind="stable")
    return order.astype(np.int64, copy=False)
