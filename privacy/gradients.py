"""What a gradient engine is: the sum over patients of clipped per-patient gradients, as one flat vector.

Two engines implement it: ``closed_form`` (dense layers, numpy, no per-sample gradients) and ``per_sample`` (any torch
module, through Opacus). Everything else in training is indifferent to which one it holds.

The unit is the patient: the losses of one patient's records (admissions, slices) are averaged first, and the gradient
of that average is clipped once, to 2-norm at most C.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Returns that many random bytes. Tests pass fixed ones; a ``Site`` always passes ``os.urandom``."""


class MappedRows:
    """Rows ``rows`` of an array that is mapped from disk, read when they are asked for: ``array[rows]``, lazily."""

    __slots__ = ("_array", "_rows")

    def __init__(self, array: npt.NDArray[Any], rows: Indices) -> None:
        self._array = array
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    def __getitem__(self, chosen: Any) -> npt.NDArray[Any]:
        return np.asarray(self._array[self._rows[chosen]])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._array[self._rows], dtype)


@dataclass(frozen=True, slots=True)
class Examples:
    """Records of patients, grouped: ``patient[i]`` is the patient of record i, non-decreasing, 0 .. patients - 1.

    Shapes: features (records, ...), targets (records, targets), patient (records,). Every patient has a record. The
    ``repr`` shows none of it, so that no log and no trace does.
    """

    features: npt.NDArray[Any] = field(repr=False)
    targets: Array = field(repr=False)
    patient: Indices = field(repr=False)
    patients: int = field(repr=False)

    @property
    def one_record_each(self) -> bool:
        return len(self.patient) == self.patients

    def take(self, chosen: Indices) -> "Examples":
        """The records of the ``chosen`` patients (rising indices), renumbered from 0."""
        rows, renumbered = self._records_of(chosen)
        return Examples(self.features[rows], self.targets[rows], renumbered, len(chosen))

    def only(self, chosen: Indices) -> "Examples":
        """As ``take``, but features that are mapped from disk stay there until a batch is taken."""
        if not isinstance(self.features, np.memmap):
            return self.take(chosen)
        rows, renumbered = self._records_of(chosen)
        lazy: Any = MappedRows(self.features, rows)
        return Examples(lazy, self.targets[rows], renumbered, len(chosen))

    def _records_of(self, chosen: Indices) -> tuple[Indices, Indices]:
        """The rows of the ``chosen`` patients' records, and their patients' new numbers."""
        if self.one_record_each:
            return chosen, np.arange(len(chosen))
        first = np.searchsorted(self.patient, chosen, side="left")
        counts = np.searchsorted(self.patient, chosen, side="right") - first
        renumbered = np.repeat(np.arange(len(chosen)), counts)
        starts = np.cumsum(counts) - counts
        return np.arange(counts.sum()) - np.repeat(starts, counts) + np.repeat(first, counts), renumbered


class GradientEngine(Protocol):
    """Gradients and outputs of one model with one loss."""

    @property
    def size(self) -> int:
        """Number of parameters, d."""

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        """Shape (d,): sum over patients of the gradient of the patient's mean loss, each clipped to ``clip_norm``.

        None: no clipping. A patient whose gradient is not finite contributes zero. No patients: zeros.
        Raises UsageError when ``clip_norm`` is given and the loss couples patients.
        """

    def outputs(self, parameters: Array, features: npt.NDArray[Any]) -> Array:
        """Shape (records, outputs): what the model says of each record."""

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        """Mean over patients of the patient's mean loss."""
