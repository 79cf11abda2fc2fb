"""The sum of a column's values, each clipped to the plan's range.

Sensitivity: with v the clipped value over M = max(|lower|, |upper|), |v| <= 1, a row adds (1/2, v): its 2-norm is at
most sqrt(5/4) = B. The half count says only how many patients are behind the sum.

Interval: of the exact sum of these patients' clipped values, sum +- z s M, s the standard deviation of the noise.

When not to use it: where values lie far from zero the noise is scaled to the farthest end; take the mean, whose values
are measured from the middle of the range, and the count.
"""

from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Sum
from wardround.strategies.statistics.base import Cell, Entries, Statistic, every_row, margins
from wardround.strategies.statistics.table import Table

_OF_COUNT: Final = 0.5
"""How much of the bound the count has."""


class Totals(Statistic[Sum]):
    @property
    def bound(self) -> float:
        return sqrt(1 + _OF_COUNT**2)

    @property
    def _largest(self) -> float:
        return max(abs(self.query.of.lower), abs(self.query.of.upper))

    def entries(self, table: Table) -> Entries:
        of = self.query.of
        value = np.clip(table.numbers[of.column], of.lower, of.upper) / self._largest
        return every_row(np.full(table.rows, _OF_COUNT), value)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, unit, largest = [], self.units.get(self.query.of.column, "1"), self._largest
        for group, (half, value), joined in margins(self.query, sums):
            around = noise * sqrt(joined)
            found, reach = float(value) * largest, self.z * around * largest
            behind, its_noise = float(half) / _OF_COUNT, around / _OF_COUNT
            cells.append(
                Cell(
                    self.query.name, group, "sum", found, found - reach, found + reach, unit, "these patients",
                    behind, its_noise,
                )
            )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        of = self.query.of
        return np.array([_OF_COUNT * patients, patients * (of.lower + of.upper) / 2 / self._largest])
