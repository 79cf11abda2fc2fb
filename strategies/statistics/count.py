"""Counts by group; with two columns to group by, a contingency table with its margins.

Sensitivity: a row adds the vector e_g of its group g, B = 1 (Dwork, McSherry, Nissim, Smith 2006, section 3; histograms
are their example). A patient of several rows in several groups adds at most m.

Interval: of the exact count of these patients, count +- z s, s the standard deviation of the noise of the summed cells.
Margins are sums of cells and have the noise of all of them. Nothing is cut off at zero: a sum of counts that were would
be too large.

When not to use it: a table of many cells with few patients each is noise; count fewer groups.
"""

from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Count
from wardround.strategies.statistics.base import Cell, Entries, Statistic, every_row, margins
from wardround.strategies.statistics.table import Table


class Counts(Statistic[Count]):
    @property
    def bound(self) -> float:
        return 1.0

    def entries(self, table: Table) -> Entries:
        return every_row(np.ones(table.rows))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells = []
        for group, value, joined in margins(self.query, sums):
            count, around = float(value[0]), noise * sqrt(joined)
            cells.append(count_cell(self.query.name, group, count, around, self.z))
        return cells

    def typical(self, patients: float) -> Array:
        return np.array([patients])


def count_cell(query: str, group: tuple[str, ...], count: float, noise: float, z: float, what: str = "count") -> Cell:
    """A noised count with its interval."""
    ends = (count - z * noise, count + z * noise)
    return Cell(query, group, what, count, *ends, "1", "these patients", count, noise)
