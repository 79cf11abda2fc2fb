"""How many patients are in each interval of a column's values, by group.

Sensitivity: a row adds 1 to the one interval that its value is in, B = 1, whatever the number of intervals (Dwork et
al. 2006). Intervals are the plan's cuts; the first and the last are open, so nothing is clipped.

Interval: of the exact count of these patients, count +- z s; the total is the sum of the intervals and has the noise of
all of them.

When not to use it: with more intervals than patients there is little but noise; quantiles need no fine histogram.
"""

from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Histogram
from wardround.protocol.query import intervals
from wardround.strategies.statistics.base import ALL, Cell, Entries, Statistic
from wardround.strategies.statistics.count import count_cell
from wardround.strategies.statistics.table import Table


class Histograms(Statistic[Histogram]):
    @property
    def bound(self) -> float:
        return 1.0

    def entries(self, table: Table) -> Entries:
        place = np.digitize(table.numbers[self.query.column], self.query.cuts)
        return Entries(place[:, None], np.ones((table.rows, 1)))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, name, names = [], self.query.name, list(intervals(self.query.cuts))
        for group, counts in zip(self.query.group_names, sums, strict=True):
            cells += [
                count_cell(name, (*group, interval), float(count), noise, self.z)
                for interval, count in zip(names, counts, strict=True)
            ]
            around = noise * sqrt(len(names))
            cells.append(count_cell(name, (*group, ALL), float(counts.sum()), around, self.z))
        return cells

    def typical(self, patients: float) -> Array:
        return np.full(self.query.width, patients / self.query.width)
