"""What a statistic is: what one site adds to a sum for it, and what the coordinator makes of the noised sum.

The first half sees patients and is the same for every statistic but for ``entries``. A row adds a vector of 2-norm at
most B (``bound``), in the numbers of its one group. With w = min(1, m / k) for each of a patient's k rows after the
filter, a patient adds a vector of 2-norm at most sum w B <= m B, m = ``rows_per_patient``. So that, and not the number
of a patient's rows, is what adding or removing one patient moves the sum by. The scaling to that bound is enforced row
by row, whatever ``entries`` says (``_held``): a statistic that promises too small a B is clipped, never unprotected.

The second half sees noised sums alone, and a public standard deviation of their noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Generic, Literal, TypeVar

import numpy as np

from wardround.privacy.gradients import Array, Indices
from wardround.protocol.query import BaseQuery, By, Range, Where
from wardround.strategies.statistics import sites
from wardround.strategies.statistics.table import Mask, Table

Q = TypeVar("Q", bound=BaseQuery)

ALL: Final = "all"
"""The name of a group that is the sum of several."""

LEAST_SIGNAL: Final = 4.0
"""What is divided by a noised count is shown only where that count is so many standard deviations of its noise."""

NOISY: Final = "fewer patients than the noise allows to divide by"
"""Why such a figure is not shown."""

Covers = Literal["these patients", "the population"]
"""What an interval is about: the exact figure of the patients who were read, so noise alone; or of all such patients,
of whom these are a sample, so sampling and noise."""


@dataclass(frozen=True, slots=True)
class Entries:
    """What each row adds, in the numbers of its group: ``value[i, j]`` to number ``place[i, j]``; shapes (rows, r).

    The places of a row are distinct, so the 2-norm of its vector is that of its values.
    """

    place: Indices
    value: Array


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of the result. ``value`` None: not shown, for the reason in ``note``.

    ``patients`` is the noised number of patients (rows) behind it, with the standard deviation of its noise, where
    there is one. ``site``: whose figure it is by itself; "": of all hospitals. ``after``: of an evaluation while a
    model is trained, the round of training.
    """

    query: str
    group: tuple[str, ...]
    quantity: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    covers: Covers
    patients: float | None = None
    patients_noise: float = 0.0
    note: str = ""
    site: str = ""
    after: int | None = None

    def hidden(self, why: str) -> "Cell":
        return replace(self, value=None, low=None, high=None, note=why)


@dataclass(frozen=True, slots=True)
class Statistic(ABC, Generic[Q]):
    """One query of a plan. ``units``: by column, from the contract; ``z``: of the interval, 1.96 for 95 %."""

    query: Q
    units: Mapping[str, str]
    z: float

    @property
    @abstractmethod
    def bound(self) -> float:
        """B: the 2-norm of one row's vector is at most this."""

    @abstractmethod
    def entries(self, table: Table) -> Entries:
        """What each row of ``table``, which is filtered already, adds to its group."""

    @abstractmethod
    def answer(self, sums: Array, noise: float) -> list[Cell]:
        """The figures of noised sums, shape (groups, width); each number has noise of standard deviation ``noise``."""

    @abstractmethod
    def typical(self, patients: float) -> Array:
        """The sums, shape (width,), of ``patients`` whose values are spread evenly: for the error to expect."""

    def learned(self, sums: Array, noise: float) -> "Statistic[Q]":
        """What the next round asks, after one whose noised sums, as for ``answer``, are ``sums``: by default the same.

        A function of released numbers, so it costs nothing (post-processing); ``bound`` may depend on them too.
        """
        return self

    @property
    def patient_bound(self) -> float:
        """The 2-norm of what one patient adds is at most this: m B, and what ``sites`` makes longer."""
        return self.query.rows_per_patient * self.bound * sites.longer(self.query)

    def site_sum(self, table: Table) -> Array:
        """What a site adds, without noise, shape (groups * sent,)."""
        query, rows = self.query, table.only(selected(table, self.query.where))
        entries, weights = self.entries(rows), _weights(rows.patient, query.rows_per_patient)
        group, value = groups(rows, query.by), _held(entries.value, self.bound) * weights[:, None]
        place, size = group[:, None] * query.width + entries.place, query.groups * query.width
        summed: Array = np.bincount(place.ravel(), value.ravel(), minlength=size).astype(np.float64)
        if not query.at_least_sites:
            return summed
        patients: Array = np.bincount(group, weights, minlength=query.groups) / query.rows_per_patient
        of_site = sites.of_one_site(query, self.bound, patients)
        return np.column_stack([summed.reshape(query.groups, -1), of_site]).ravel()


def selected(table: Table, where: Sequence[Where]) -> Mask:
    """Which rows every filter lets through."""
    chosen = np.ones(table.rows, bool)
    for rule in where:
        if rule.codes:
            wanted = [place for place, code in enumerate(table.code_names[rule.column]) if code in rule.codes]
            chosen &= np.isin(table.codes[rule.column], wanted)
        else:
            values = table.numbers[rule.column]
            chosen &= values >= (-inf if rule.at_least is None else rule.at_least)
            chosen &= values < (inf if rule.below is None else rule.below)
    return chosen


def groups(table: Table, by: Sequence[By]) -> Indices:
    """The group of each row, in the order of ``group_names``."""
    found = np.zeros(table.rows, np.int64)
    for each in by:
        place = table.codes[each.column] if each.codes else np.digitize(table.numbers[each.column], each.cuts)
        found = found * len(each.names) + place
    return found


def scaled(table: Table, of: Range) -> Array:
    """Clipped values as numbers in -1 .. 1."""
    middle, half = middle_and_half(of)
    return (np.clip(table.numbers[of.column], of.lower, of.upper) - middle) / half


def middle_and_half(of: Range) -> tuple[float, float]:
    return (of.lower + of.upper) / 2, (of.upper - of.lower) / 2


def every_row(*columns: Array) -> Entries:
    """Entries whose j-th number is the j-th of ``columns``."""
    value = np.stack(columns, axis=1)
    return Entries(np.broadcast_to(np.arange(value.shape[1]), value.shape), value)


def margins(query: BaseQuery, values: Array) -> list[tuple[tuple[str, ...], Array, int]]:
    """(name, sum, groups in it) of every group, of every group of one column alone, and of all together.

    ``values`` (groups, ...). All are sums of the same numbers, so they agree with one another.
    """
    shape = tuple(len(each.names) for each in query.by)
    found = [(name, value, 1) for name, value in zip(query.group_names, values, strict=True)]
    if not shape:
        return found
    cube = values.reshape(*shape, *values.shape[1:])
    if len(shape) > 1:
        for axis, each in enumerate(query.by):
            others = tuple(other for other in range(len(shape)) if other != axis)
            alone = cube.sum(axis=others)
            for name, value in zip(each.names, alone, strict=True):
                group = tuple(name if place == axis else ALL for place in range(len(shape)))
                found.append((group, value, len(values) // len(each.names)))
    found.append(((ALL,) * len(shape), values.sum(axis=0), len(values)))
    return found


def groups_of(query: BaseQuery, group: Sequence[str]) -> list[int]:
    """The places of the groups that a figure of ``group``, a margin perhaps, is made of."""
    named = group[: len(query.by)]
    return [
        place
        for place, name in enumerate(query.group_names)
        if all(here in (ALL, there) for here, there in zip(named, name, strict=True))
    ]


def slopes(of: Callable[[Array], Array], sums: Array, step: float) -> Array:
    """Derivatives of ``of(sums)``, (k,), by every number of ``sums``, (width,): central differences, (width, k)."""
    found = []
    for place in range(len(sums)):
        up, down = sums.copy(), sums.copy()
        up[place] += step
        down[place] -= step
        found.append((of(up) - of(down)) / (2 * step))
    return np.array(found)


def spread(of: Callable[[Array], Array], sums: Array, noise: float) -> Array:
    """Standard deviation of ``of(sums)``, (k,), through the noise of ``sums``, (width,): the delta method.

    Derivatives are over a tenth of the noise.
    """
    if noise == 0:
        return np.zeros_like(of(sums))
    found: Array = noise * np.sqrt(np.square(slopes(of, sums, 0.1 * noise)).sum(axis=0))
    return found


def _held(value: Array, bound: float) -> Array:
    """``value`` (rows, r) with every row's 2-norm at most ``bound``; a row with a number that is not finite is zero."""
    value = np.where(np.isfinite(value).all(axis=1, keepdims=True), value, 0.0)
    norm = np.sqrt(np.square(value).sum(axis=1, keepdims=True))
    held: Array = value * (bound / np.maximum(norm, bound))
    return held


def _weights(patient: Indices, rows_per_patient: int) -> Array:
    """min(1, m / k) for each row, of whose patient there are k rows."""
    _, number, counts = np.unique(patient, return_inverse=True, return_counts=True)
    weights: Array = np.minimum(1.0, rows_per_patient / counts[number]) if len(patient) else np.zeros(0)
    return weights
