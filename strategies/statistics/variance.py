"""Variance and standard deviation of a column's values, each clipped to the plan's range.

Sensitivity: with v in -1 .. 1 the clipped value from the middle of the range over half its length, a row adds
(1, v, v^2, v^3 / 2, v^4 / 2): its 2-norm is at most sqrt(3 + 1/4 + 1/4) = sqrt(3.5) = B. The third and fourth powers
are only for the interval.

Interval: of the variance in the population. The variance of s^2 by sampling is (mu_4 - s^4) / n for any distribution
(Casella, Berger 2002, exercise 7.45, to first order in 1 / n); that by noise is by the delta method. Of the standard
deviation the interval is the square roots of these ends.

When not to use it: where almost all values lie close together in a wide range the noise exceeds the variance; narrow
the range.
"""

from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Variance
from wardround.strategies.statistics.base import (
    Cell,
    Entries,
    Statistic,
    every_row,
    margins,
    middle_and_half,
    scaled,
    spread,
)
from wardround.strategies.statistics.table import Table

_OF_HIGHER: Final = 0.5


class Variances(Statistic[Variance]):
    @property
    def bound(self) -> float:
        return sqrt(3 + 2 * _OF_HIGHER**2)

    def entries(self, table: Table) -> Entries:
        value = scaled(table, self.query.of)
        return every_row(np.ones(table.rows), value, value**2, _OF_HIGHER * value**3, _OF_HIGHER * value**4)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, unit = [], self.units.get(self.query.of.column, "1")
        _, half = middle_and_half(self.query.of)
        for group, moments, joined in margins(self.query, sums):
            around, n = noise * sqrt(joined), max(float(moments[0]), 2.0)
            m1, m2, m3, m4 = (float(m) / n for m in moments[1:])
            m3, m4 = m3 / _OF_HIGHER, m4 / _OF_HIGHER
            found = float(_variance(moments)[0])
            fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
            of_sampling = max(0.0, fourth - found**2) * self.query.rows_per_patient / n
            deviation = sqrt(of_sampling + float(spread(_variance, moments[:3], around)[0]) ** 2)
            low, high = max(0.0, found - self.z * deviation), max(0.0, found + self.z * deviation)
            value = max(0.0, found)
            for quantity, of, its_unit in (
                ("variance", lambda v: v * half**2, _squared(unit)),
                ("standard deviation", lambda v: sqrt(v) * half, unit),
            ):
                cells.append(
                    Cell(
                        self.query.name, group, quantity, of(value), of(low), of(high), its_unit, "the population",
                        float(moments[0]), around,
                    )
                )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        return patients * np.array([1.0, 0.0, 1 / 3, 0.0, _OF_HIGHER / 5])


def _variance(moments: Array) -> Array:
    """With the divisor n - 1, from (n, sum v, sum v^2, ...)."""
    n = max(float(moments[0]), 2.0)
    return np.array([(moments[2] - moments[1] ** 2 / n) / (n - 1)])


def _squared(unit: str) -> str:
    return unit if unit == "1" else f"({unit})2"
