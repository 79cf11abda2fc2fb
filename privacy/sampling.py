"""Poisson sampling of patients: each joins a step on its own with probability q (Abadi et al. 2016).

Amplification by subsampling is proved for this sampler, and not for shuffled batches of a fixed size, so a
batch has a random size and is never cut. Coins come from the caller's random bytes: the operating system's
at a site.
"""

from typing import Final

import numpy as np

from wardround.privacy.gradients import Indices, RandomBytes
from wardround.protocol.errors import UsageError

_PATIENTS_AT_ONCE: Final = 1 << 17
COIN_BYTES: Final = 8


def poisson_sample(patients: int, q: float, random_bytes: RandomBytes) -> Indices:
    """The chosen of patients 0 .. patients - 1, rising, each with probability ``q``, shape (batch,).

    A patient's coin is eight bytes as a little-endian integer, compared with floor(q * 2**64): its
    probability is at most ``q`` and falls short by less than 2**-64. Raises UsageError unless 0 <= q <= 1.
    """
    if not 0.0 <= q <= 1.0:
        raise UsageError(f"a sampling probability of {q} is not between 0 and 1", "choose one in 0 .. 1")
    if q == 1.0:  # the threshold would be 2**64, which no 64-bit integer holds
        return np.arange(patients, dtype=np.int64)
    chosen = []
    for first in range(0, patients, _PATIENTS_AT_ONCE):
        count = min(_PATIENTS_AT_ONCE, patients - first)
        chosen.append(chosen_of(random_bytes(COIN_BYTES * count), q) + first)
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


def chosen_of(coins: bytes, q: float) -> Indices:
    """The numbers of those whose coin, eight bytes each, falls below ``q`` < 1; rising."""
    threshold = np.uint64(int(q * 2.0**64))  # exact: a power of two only moves the exponent, int() is the floor
    return np.flatnonzero(np.frombuffer(coins, "<u8") < threshold).astype(np.int64, copy=False)
