"""An answer that is too large for memory, on disk until it has been added up.

The file has no name, so it is gone with the process. Under secure aggregation what it holds is masked.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BLOCK: Final = 4 << 20
"""Bytes that are read at once."""


class Spool:
    """Written once, piece by piece, and then read (``protocol.outgoing.Stored``)."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - open as long as the spool
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def write(self, piece: bytes | memoryview) -> None:
        """Add to the end. Raises OSError when the disk is full."""
        rest = memoryview(piece)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._length += len(piece)

    def read(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start`` on."""
        return os.pread(self._file.fileno(), size, start)

    def vector(self, start: int, kind: str) -> "SpooledVector":
        """What follows ``start`` as numbers of the NumPy type ``kind``."""
        return SpooledVector(self, start, np.dtype(kind))


class SpooledVector:
    """Numbers in a spool (``protocol.parameters.Blocks``)."""

    def __init__(self, spool: Spool, start: int, dtype: "np.dtype[Any]") -> None:
        self._spool = spool
        self._start = start
        self.dtype = dtype
        self.size = (len(spool) - start) // dtype.itemsize

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for start in range(self._start, len(self._spool), BLOCK):
            yield np.frombuffer(self._spool.read(start, BLOCK), self.dtype)
