"""From real numbers to integers of the ring and back: a public step per tensor, unbiased rounding, no silent clipping.

A value x becomes floor(x / step + u) with u uniform in [0, 1): its expectation is x / step exactly (stochastic
rounding, Gupta et al. 2015, arXiv 1502.02551), and its error is below one step. The random u are an AES key stream of
the site's own, 32 bits each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from wardround.privacy.secagg.ring import Integers, Ring
from wardround.protocol.errors import UsageError

Reals = npt.NDArray[np.float64]

_CHUNK: Final = 1 << 14
_ZEROS: Final = memoryview(bytes(4 * _CHUNK))


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Public and part of the plan: which integers stand for which reals.

    ``ranges`` has one (length, bound) for each tensor of the vector, in order: no value of it exceeds the bound in
    absolute value. The step of a tensor is bound / limit, the finest that ``parties`` summands allow.
    """

    ring: Ring
    parties: int
    ranges: tuple[tuple[int, float], ...]

    @property
    def length(self) -> int:
        """d, coordinates of the whole vector."""
        return sum(length for length, _ in self.ranges)

    def steps(self) -> Reals:
        """Shape (d,): what a unit of the ring is worth; a power of two at each coordinate, so decoding is exact."""
        return np.repeat(np.array(self._tensor_steps()), [length for length, _ in self.ranges])

    def quantize(self, values: Reals, key: bytes) -> Integers:
        """Shape (d,), float64 -> int64 within the ring's limit. ``key``: 32 secret bytes for the rounding, used once.

        Raises:
            UsageError: another length, a value that is not finite, or one of more steps than the ring's limit.
        """
        if values.shape != (self.length,) or values.dtype != np.float64:
            raise UsageError("the vector does not have the plan's length", "check the strategy's contribution")
        limit, stream = self.ring.limit(self.parties), Cipher(AES(key), CTR(bytes(16))).encryptor()
        found = np.empty(len(values), np.int64)
        for part, step in self._chunks():
            scaled = values[part] * (1.0 / step)  # exact, because a step is a power of two
            chance = np.frombuffer(stream.update(_ZEROS[: 4 * len(scaled)]), "<u4") * 2.0**-32
            scaled += chance
            np.floor(scaled, out=scaled)
            low, high = float(scaled.min()), float(scaled.max())
            if not -limit <= low <= high <= limit:  # false for NaN too
                raise _refusal(values)
            found[part] = scaled
        return found

    def _tensor_steps(self) -> list[float]:
        limit = self.ring.limit(self.parties)
        return [float(2.0 ** np.ceil(np.log2(bound / limit))) for _, bound in self.ranges]

    def _chunks(self) -> Iterator[tuple[slice, float]]:
        """Every tensor in pieces small enough for the cache, with its step."""
        start = 0
        for (length, _), step in zip(self.ranges, self._tensor_steps(), strict=True):
            for first in range(start, start + length, _CHUNK):
                yield slice(first, min(first + _CHUNK, start + length)), step
            start += length

    def dequantize(self, total: Integers, start: int = 0) -> Reals:
        """The real sum for an integer sum, or for the part of it from ``start`` on: exact below 2^53.

        Steps are powers of two, so a product has no rounding.
        """
        values, first = total.astype(np.float64), -start
        for (length, _), step in zip(self.ranges, self._tensor_steps(), strict=True):
            values[max(first, 0) : max(first + length, 0)] *= step
            first += length
        return values


def _refusal(values: Reals) -> UsageError:
    if not np.isfinite(values).all():
        return UsageError("the vector holds a value that is not finite", "nothing was sent; train with a lower rate")
    return UsageError(
        "a value of the vector exceeds the range that the plan allows", "nothing was sent; widen the range"
    )
