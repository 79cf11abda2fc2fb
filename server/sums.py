"""How a round adds up what its sites sent: vectors in the open, or under masks that only the sum comes out of."""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import numpy as np

from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.server import AttemptDesk
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.messages import Masked, Reply, split_contribution
from wardround.protocol.parameters import Sums, Total, Vector

NOT_FINITE: Final = "the vector holds a number that is not finite"

BLOCK: Final = 1 << 20
"""Coordinates of a model that are stepped at once."""


class Adding(Protocol):
    """What a round needs of either."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose vectors are in the sum, sorted."""

    def add(self, answer: Reply | Masked) -> None:
        """Take a vector. Raises ProtocolViolation, and adds nothing, when it is not as the plan says."""

    def total(self) -> Total:
        """The sums. Raises Unavailable where they cannot be opened."""

    def totals(self, size: int) -> Iterator[tuple[slice, Total]]:
        """The same in blocks of the model, whose size is ``size``: parts as long as the model are cut, others whole."""

    def spare(self, size: int) -> Vector | None:
        """Memory for a model of ``size`` parameters which ``totals`` reads before it is written to, or None.

        The sums cannot be read again afterwards.
        """


class OpenSum:
    """Vectors that the coordinator can read, added in the order of the sites' names in double precision."""

    def __init__(self, part_sizes: Mapping[str, int]) -> None:
        self._sizes = dict(part_sizes)
        self._vectors: dict[str, Sums] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted(self._vectors))

    def add(self, answer: Reply | Masked) -> None:
        if isinstance(answer, Masked):
            raise ProtocolViolation(answer.site, "the vector is masked, and this study adds in the open")
        vector = answer.vector
        if vector.shape != (sum(self._sizes.values()),) or vector.dtype != np.float64:
            raise ProtocolViolation(answer.site, "the vector has another shape or type")
        if not np.isfinite(vector).all():
            raise ProtocolViolation(answer.site, NOT_FINITE)
        self._vectors[answer.site] = vector

    def total(self) -> Total:
        summed = np.zeros(sum(self._sizes.values()))
        for site in self.sites:
            summed += self._vectors[site]
        return Total(split_contribution(summed, self._sizes), len(self._vectors))

    def totals(self, size: int) -> Iterator[tuple[slice, Total]]:
        yield slice(0, size), self.total()

    def spare(self, size: int) -> Vector | None:
        return None


class MaskedSum:
    """Vectors under masks: one running sum, which the survivors open together (``privacy.secagg``).

    There is one vector, in whole numbers, at any time; reals are made of it block by block.
    """

    def __init__(self, desk: AttemptDesk, quantizer: Quantizer, part_sizes: Mapping[str, int]) -> None:
        self.desk = desk
        self._quantizer = quantizer
        self._sizes = dict(part_sizes)
        self._sites: set[str] = set()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted(self._sites))

    def add(self, answer: Reply | Masked) -> None:
        if isinstance(answer, Reply):
            raise ProtocolViolation(answer.site, "the vector is not masked, and nobody may see it alone")
        if answer.upload.site != answer.site:
            raise ProtocolViolation(answer.site, "the upload names another site")
        self.desk.add_upload(answer.upload, answer.vector)
        self._sites.add(answer.site)

    def restored(self) -> None:
        """The desk was restored: the sites are those of its uploads."""
        self._sites = {upload.site for upload in self.desk.added[0]}

    def open(self) -> None:
        """Take the masks away, once enough sites have helped. Raises Unavailable when they have not."""
        self.desk.open()

    def total(self) -> Total:
        self.desk.open()
        return Total(
            split_contribution(self._reals(slice(0, sum(self._sizes.values()))), self._sizes), len(self._sites)
        )

    def totals(self, size: int) -> Iterator[tuple[slice, Total]]:
        self.desk.open()
        for first in range(0, size, BLOCK):
            block, parts, start = slice(first, min(first + BLOCK, size)), {}, 0
            for name, length in sorted(self._sizes.items()):
                cut = block if length == size else slice(0, length)
                parts[name] = self._reals(slice(start + cut.start, start + cut.stop))
                start += length
            yield block, Total(parts, len(self._sites))

    def spare(self, size: int) -> Vector | None:
        self.desk.open()
        first, memory = min(self._sizes), self.desk.memory
        # Any other part as long as the model would be overwritten before it is read.
        alone = [name for name, length in self._sizes.items() if length == size] == [first]
        return memory[:size].view(np.float32) if alone and memory.dtype.itemsize == 4 else None

    def _reals(self, part: slice) -> Sums:
        return self._quantizer.dequantize(self.desk.integers(part), part.start)
