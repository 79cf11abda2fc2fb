"""Integers modulo 2^32 or 2^64: what masks are added in, and how large a summand may be so that no sum wraps around."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.protocol.parameters import Blocks

Residues: TypeAlias = npt.NDArray[Any]
"""Shape (d,), uint32 or uint64: one value of the ring per coordinate."""

Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ring:
    """Integers modulo 2^bits; the upper half stands for the negative ones (two's complement)."""

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (32, 64):
            raise ValueError(f"there is a ring of 32 and one of 64 bits, none of {self.bits}")

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Little-endian on every machine, because these bytes are hashed and sent."""
        return np.dtype(f"<u{self.bits // 8}")

    def limit(self, parties: int) -> int:
        """The largest absolute value of one summand, so that a sum of ``parties`` summands is below 2^(bits - 1)."""
        if parties < 1:
            raise ValueError("a sum has at least one summand")
        return ((1 << (self.bits - 1)) - 1) // parties

    def encode(self, values: Integers) -> Residues:
        """Shape (d,), int64 -> ring. The caller keeps |values| within ``limit``."""
        return values.astype(self.dtype)  # C conversion of integers is reduction modulo 2^bits

    def decode(self, total: Residues) -> Integers:
        """The integer sum, exact when every summand was within ``limit``."""
        return total.view(f"<i{self.bits // 8}").astype(np.int64)


def content_hash(vector: Residues | Blocks) -> str:
    """SHA-256 of a vector's bytes, 64 hex digits."""
    found = hashlib.sha256()
    for block in in_blocks(vector):
        found.update(block.data)
    return found.hexdigest()


def in_blocks(vector: Residues | Blocks) -> Iterable[Residues]:
    """A vector that is held is its own one block."""
    return (vector,) if isinstance(vector, np.ndarray) else vector


SMALL: Final = Ring(32)
WIDE: Final = Ring(64)
