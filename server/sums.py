"""How a round adds up what its sites sent: vectors in the open, or under masks that only the sum comes out of."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.server import AttemptDesk
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.messages import Masked, Reply, split_contribution
from wardround.protocol.parameters import Sums, Total


class Adding(Protocol):
    """What a round needs of either."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose vectors are in the sum, sorted."""

    def add(self, answer: Reply | Masked) -> None:
        """Take a vector. Raises ProtocolViolation, and adds nothing, when it is not as the plan says."""

    def total(self) -> Total:
        """The sums. Raises Unavailable where they cannot be opened."""


class OpenSum:
    """Vectors that the coordinator can read, added in the order of the sites' names in double precision."""

    def __init__(self, part_sizes: Mapping[str, int]) -> None:
        self._sizes = dict(part_sizes)
        self._vectors: dict[str, Sums] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted(self._vectors))

    def add(self, answer: Reply | Masked) -> None:
        vector = answer.vector
        if isinstance(answer, Masked):
            raise ProtocolViolation(answer.site, "the vector is masked, and this study adds in the open")
        if vector.shape != (sum(self._sizes.values()),) or vector.dtype != np.float64:
            raise ProtocolViolation(answer.site, "the vector has another shape or type")
        if not np.isfinite(vector).all():
            raise ProtocolViolation(answer.site, "the vector holds a number that is not finite")
        self._vectors[answer.site] = vector

    def total(self) -> Total:
        summed = np.zeros(sum(self._sizes.values()))
        for site in self.sites:
            summed += self._vectors[site]
        return Total(split_contribution(summed, self._sizes), len(self._vectors))


class MaskedSum:
    """Vectors under masks: one running sum, which the survivors open together (``privacy.secagg``)."""

    def __init__(self, desk: AttemptDesk, quantizer: Quantizer, part_sizes: Mapping[str, int]) -> None:
        self.desk = desk
        self._quantizer = quantizer
        self._sizes = dict(part_sizes)
        self._sites: set[str] = set()
        self._total: Total | None = None

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

    def open(self) -> None:
        """Take the masks away, once enough sites have helped. Raises Unavailable when they have not."""
        summed = self._quantizer.dequantize(self.desk.total())
        self._total = Total(split_contribution(summed, self._sizes), len(self._sites))

    def total(self) -> Total:
        if self._total is None:
            self.open()
        assert self._total is not None
        return self._total
