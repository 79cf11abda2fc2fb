"""How far a released model's predictions of a quantity lie from it: mean absolute and root mean squared error.

Sensitivity: with a = min(|error| / L, 1), L the plan's largest error, a row adds 1, a - 1/2, a^2 - 1/2 and a^4 - 1/2.
All but the first lie in -1/2 .. 1/2, so B = sqrt(1 + 3/4), reached at a = 0 and a = 1. The prediction is a fixed
function of the row. A patient of k rows has each weighted 1 / k, so counts as one.

Interval: of the population that these patients are a sample of; sampling and noise, as of a ratio (Fieller 1954). The
powers give the sampling variance whatever the errors' distribution.

When not to use it: with a largest error far above most errors, whose noise is in its unit.
"""

from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import PredictionError
from wardround.strategies.statistics.base import NOISY, Cell, Entries, Statistic, every_row, margins
from wardround.strategies.statistics.bounded import bounded_mean, each_end
from wardround.strategies.statistics.table import Table


class PredictionErrors(Statistic[PredictionError]):
    @property
    def bound(self) -> float:
        return sqrt(1 + 3 * 0.25)

    def entries(self, table: Table) -> Entries:
        error = np.abs(table.scores[self.query.name] - table.numbers[self.query.outcome])
        # A prediction that is no number is as wrong as can be.
        part = np.minimum(np.nan_to_num(error / self.query.largest_error, nan=1.0), 1.0)
        return every_row(np.ones(table.rows), part - 0.5, part**2 - 0.5, part**4 - 0.5)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, most = [], self.query.largest_error
        unit = self.units.get(self.query.outcome, "1")
        for group, numbers, groups in margins(self.query, sums):
            around, there = noise * sqrt(groups), float(numbers[0])
            first, first_ends = bounded_mean(numbers[0], numbers[1], numbers[2], self.z, around, around)
            second, second_ends = bounded_mean(numbers[0], numbers[2], numbers[3], self.z, around, around)
            for name, value, ends in (
                ("mean absolute error", most * first, each_end(first_ends, lambda end: most * end)),
                ("root mean squared error", most * sqrt(second), each_end(second_ends, lambda end: most * sqrt(end))),
            ):
                low, high = ends or (None, None)
                cell = Cell(
                    self.query.name, group, name, value, low, high, unit, "the population", there, around
                )  # fmt: skip
                cells.append(cell if ends else cell.hidden(NOISY))
        return cells

    def typical(self, patients: float) -> Array:
        """Of errors spread evenly over 0 .. the largest."""
        return patients * np.array([1.0, 0.0, 1 / 3 - 0.5, 1 / 5 - 0.5])
