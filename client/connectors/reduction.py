"""What is kept of one column for each patient, so that events need not be kept.

Every reduction gives the same for the same events in any order: ties are broken by value, and a mean's sum is exact
(Shewchuk 1997, Adaptive precision floating-point arithmetic: partial sums that do not overlap).
"""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from math import fsum, inf, isinf, nan

import pyarrow as pa

from wardround.client.connectors.cohort_spec import Event


def writable(text: str) -> str:
    """The text without halves of characters, which JSON can hold and Arrow cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Reducer(ABC):
    """One column. Patients are numbered from 0 by ``grow``; ``numeric`` says whether only numbers are taken."""

    type: pa.DataType = pa.float64()
    numeric = True

    @abstractmethod
    def grow(self) -> None:
        """One patient more."""

    @abstractmethod
    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        """Take one of the patient's events."""

    @abstractmethod
    def cell(self, patient: int) -> float | int | str | None:
        """The cell of a patient with an event."""

    def none(self) -> float | int | str | None:
        """The cell of a patient without an event."""
        return None

    def cells(self, patients: Sequence[int | None]) -> pa.Array:
        """Cells of these patients; None: a patient without an event."""
        return pa.array([self.none() if p is None else self.cell(p) for p in patients], self.type)


def reducer_of(column: Event) -> Reducer:
    """The reduction that a column asks for."""
    if column.take == "count":
        return _Count()
    if column.take == "exists":
        return _Exists()
    if column.take == "mean":
        return _Mean()
    if column.take in ("min", "max"):
        return _Extreme(1.0 if column.take == "max" else -1.0)
    sign = 1.0 if column.take == "last" else -1.0
    return _NearestNumber(sign) if column.unit is not None else _NearestText(sign)


class _NearestNumber(Reducer):
    """First (``sign`` -1) or last (1) number; of two at one time the smaller or the larger."""

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.times, self.numbers = array("d"), array("d")

    def grow(self) -> None:
        self.times.append(-inf)
        self.numbers.append(nan)

    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        assert number is not None
        time, value = seconds * self.sign, number * self.sign
        best = self.times[patient]
        if time > best or (time == best and value > self.numbers[patient]):
            self.times[patient], self.numbers[patient] = time, value

    def cell(self, patient: int) -> float | None:
        return None if isinf(self.times[patient]) else self.numbers[patient] * self.sign


class _NearestText(Reducer):
    """First or last text or code; a number is written in its shortest form."""

    type = pa.string()
    numeric = False

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.kept: list[tuple[float, str] | None] = []

    def grow(self) -> None:
        self.kept.append(None)

    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        if number is not None:
            text = repr(float(number)).removesuffix(".0")
        new = (seconds, text or "")
        old = self.kept[patient]
        if old is None or (new > old if self.sign > 0 else new < old):
            self.kept[patient] = new

    def cell(self, patient: int) -> str | None:
        kept = self.kept[patient]
        return writable(kept[1]) or None if kept else None


class _Extreme(Reducer):
    """Smallest (``sign`` -1) or largest (1) number."""

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.numbers = array("d")

    def grow(self) -> None:
        self.numbers.append(-inf)

    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        assert number is not None
        self.numbers[patient] = max(self.numbers[patient], number * self.sign)

    def cell(self, patient: int) -> float | None:
        return None if isinf(self.numbers[patient]) else self.numbers[patient] * self.sign


class _Mean(Reducer):
    def __init__(self) -> None:
        self.counts = array("q")
        self.partials: list[list[float]] = []

    def grow(self) -> None:
        self.counts.append(0)
        self.partials.append([])

    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        assert number is not None
        self.counts[patient] += 1
        partials, kept, total = self.partials[patient], [], number
        for part in partials:
            if abs(total) < abs(part):
                total, part = part, total
            high = total + part
            low = part - (high - total)
            if low:
                kept.append(low)
            total = high
        self.partials[patient] = [*kept, total]

    def cell(self, patient: int) -> float | None:
        count = self.counts[patient]
        if not count:
            return None
        mean = fsum(self.partials[patient]) / count
        return mean if abs(mean) < inf else None


class _Count(Reducer):
    type = pa.int64()
    numeric = False

    def __init__(self) -> None:
        self.counts = array("q")

    def grow(self) -> None:
        self.counts.append(0)

    def add(self, patient: int, seconds: float, number: float | None, text: str | None) -> None:
        self.counts[patient] += 1

    def cell(self, patient: int) -> int:
        return self.counts[patient]

    def none(self) -> int:
        return 0


class _Exists(_Count):
    def cell(self, patient: int) -> int:
        return int(self.counts[patient] > 0)
