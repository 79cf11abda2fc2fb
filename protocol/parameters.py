"""Model parameters after training: one flat float32 array, and the layout that says what lies where.

Everything after training (clip, quantise, mask, sum, step) works on the flat array; only tasks and the released
file know tensors. A layout is versioned data with a digest, so two parties that agree on the digest agree on
every index.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.protocol.canonical import LABEL_INITIAL, LABEL_LAYOUT, LABEL_MODEL, digest, encode
from wardround.protocol.errors import UsageError

Vector: TypeAlias = npt.NDArray[np.float32]
"""A model or a difference of models: shape (layout.size,), contiguous."""

Sums: TypeAlias = npt.NDArray[np.float64]
"""Weighted sums over hospitals, in double precision."""

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Coordinates of a model: (first, behind the last), rising and apart from one another."""

LAYOUT_VERSION: Final = 1


class Blocks(Protocol):
    """A vector that is not held in memory: read block by block, in order, as often as it is iterated over."""

    @property
    def size(self) -> int:
        """Coordinates of the whole vector."""

    @property
    def dtype(self) -> "np.dtype[Any]": ...

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor of a layout; ``fan_in`` is the number of inputs of a unit (used by the initial weights)."""

    name: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of tensors in a flat vector: row-major, one behind the other, without gaps."""

    tensors: tuple[Tensor, ...]
    version: int = LAYOUT_VERSION

    @property
    def size(self) -> int:
        """Number of parameters, d."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def digest(self) -> str:
        rows = [[t.name, list(t.shape), t.fan_in] for t in self.tensors]
        return digest(LABEL_LAYOUT, encode({"version": self.version, "tensors": rows}))

    def ranges(self, names: Collection[str]) -> Ranges:
        """Where the tensors of these names lie; neighbours are one range."""
        found, start = list[tuple[int, int]](), 0
        for tensor in self.tensors:
            end = start + tensor.size
            if tensor.name in names:
                found[-1:] = [(found[-1][0], end)] if found and found[-1][1] == start else [*found[-1:], (start, end)]
            start = end
        return tuple(found)

    def split(self, vector: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
        """Views of ``vector`` (shape (size,)), one for each tensor, by name."""
        if vector.shape != (self.size,):
            raise UsageError(
                f"a vector of shape {vector.shape} does not fit a layout of {self.size} parameters",
                "use the layout that the plan names",
            )
        views, start = {}, 0
        for tensor in self.tensors:
            views[tensor.name] = vector[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        return views

    def join(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> Vector:
        """The inverse of ``split``: one float32 vector from tensors by name."""
        return np.concatenate([np.ravel(tensors[t.name]) for t in self.tensors]).astype(np.float32)


_BLOCK: Final = 1 << 20


def initial_weights(layout: Layout, scheme: Literal["zeros", "uniform"], seed: int) -> Vector:
    """The public starting point of a study, from the layout and a public seed alone.

    ``uniform`` draws U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the usual default for dense layers (LeCun et al. 1998).
    The bits come from SHAKE-256 of the layout's digest and the seed: the same on every machine, for ever.
    """
    if scheme == "zeros":
        return np.zeros(layout.size, np.float32)
    stream = hashlib.shake_256(f"{LABEL_INITIAL}\x00{layout.digest}\x00{seed}".encode()).digest(4 * layout.size)
    weights, start = np.empty(layout.size, np.float32), 0
    for tensor in layout.tensors:
        bound, end = 1 / math.sqrt(max(tensor.fan_in, 1)), start + tensor.size
        # In blocks: doubles of the whole model would take six times its memory.
        for first in range(start, end, _BLOCK):
            count = min(_BLOCK, end - first)
            unit = (np.frombuffer(stream, ">u4", count, 4 * first).astype(np.float64) + 0.5) / 2.0**32
            weights[first : first + count] = (2.0 * unit - 1.0) * bound
        start = end
    return weights


def model_hash(vector: Vector) -> str:
    """The name of a model: SHA-256 over its little-endian float32 bytes."""
    return digest(LABEL_MODEL, np.ascontiguousarray(vector, dtype="<f4"))


@dataclass(frozen=True, slots=True)
class Update:
    """What one hospital learned: new model minus old model, the weight it declared, and the steps that it took.

    Deliberately without a serialised form: an update is one hospital's and does not travel; a strategy turns it into
    a contribution, and only sums of contributions are looked at.
    """

    difference: Vector
    weight: float
    steps: int = 1

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an Update belongs to one hospital and is not serialised")


Contribution: TypeAlias = Mapping[str, Sums]
"""What one hospital adds to the sum: named float64 arrays, the same names and shapes at every hospital."""


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the hospitals of one round: all that a server learns, and so all that a strategy can look at."""

    parts: Mapping[str, Sums]
    sites: int

    def __post_init__(self) -> None:
        if self.sites < 1:
            raise ValueError("a total is a sum over at least one site")
