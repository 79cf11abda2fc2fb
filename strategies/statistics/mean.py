"""The mean of a column's values, each clipped to the plan's range.

Sensitivity: with v in -1 .. 1 the clipped value from the middle of the range over half its length, a row adds
(1, v, v^2 / 2): its 2-norm is at most sqrt(1 + 1 + 1/4) = 3/2 = B. The squares tell how much patients differ, which the
interval needs, and need no more than half the weight.

Interval: of the mean in the population of which these patients are a sample. The variance is that of sampling, s^2 / n,
and that of a ratio of two noised sums, (1 + r^2) s_noise^2 / n^2 with r the scaled mean (the delta method: Casella,
Berger 2002, section 5.5.4). Where a patient counts as up to m rows, n is divided by m, as if all rows of a patient were
alike: the interval may then be too long, and is not too short.

When not to use it: where the range must be wide because of a few; clipping moves the mean. Take the median.
"""

from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Mean
from wardround.strategies.statistics.base import Cell, Entries, Statistic, every_row, margins, middle_and_half, scaled
from wardround.strategies.statistics.table import Table

_OF_SQUARES: Final = 0.5


class Means(Statistic[Mean]):
    @property
    def bound(self) -> float:
        return sqrt(2 + _OF_SQUARES**2)

    def entries(self, table: Table) -> Entries:
        value = scaled(table, self.query.of)
        return every_row(np.ones(table.rows), value, _OF_SQUARES * value**2)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, unit = [], self.units.get(self.query.of.column, "1")
        middle, half = middle_and_half(self.query.of)
        for group, (count, values, squares), joined in margins(self.query, sums):
            around, n = noise * sqrt(joined), max(float(count), 1.0)
            ratio = float(values) / n
            differ = max(0.0, float(squares) / _OF_SQUARES / n - ratio**2)
            of_sampling = differ * self.query.rows_per_patient / n
            deviation = sqrt(of_sampling + (1 + ratio**2) * (around / n) ** 2)
            mean, reach = middle + half * ratio, self.z * half * deviation
            cells.append(
                Cell(
                    self.query.name, group, "mean", mean, mean - reach, mean + reach, unit, "the population",
                    float(count), around,
                )
            )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        return patients * np.array([1.0, 0.0, _OF_SQUARES / 3])
