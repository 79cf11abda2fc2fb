"""The correlation of every two of several columns' values, each clipped to the plan's range.

Sensitivity: that of ``moments``.

Interval: of the correlation in the population, on Fisher's scale artanh r (Fisher 1921): its variance by sampling is
1 / (n - 3), for values near a normal distribution, and that by noise is by the delta method.

When not to use it: for values far from normal the sampling part of the interval is only a guess; for many columns the
noise of each pair grows with their number.
"""

from itertools import combinations
from math import atanh, sqrt, tanh
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Correlation
from wardround.strategies.statistics.base import Cell, Entries, Statistic, margins, spread
from wardround.strategies.statistics.moments import matrix_of, moments_bound, moments_of, typical_moments
from wardround.strategies.statistics.table import Table

_NEARLY_ONE: Final = 1 - 1e-6


class Correlations(Statistic[Correlation]):
    @property
    def bound(self) -> float:
        return moments_bound(len(self.query.of))

    def entries(self, table: Table) -> Entries:
        return moments_of(table, self.query.of)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, count = [], len(self.query.of)
        for group, moments, joined in margins(self.query, sums):
            around, n = noise * sqrt(joined), max(float(moments[0]), 4.0)
            whole = matrix_of(moments, count)
            for one, other in combinations(range(count), 2):
                pick = np.ix_([0, one + 1, other + 1], [0, one + 1, other + 1])
                six = whole[pick][np.triu_indices(3)]
                r = float(np.clip(_correlation(six)[0], -_NEARLY_ONE, _NEARLY_ONE))
                by_noise = float(spread(_correlation, six, around)[0]) / (1 - r**2)
                deviation = sqrt(by_noise**2 + 1 / max(n / self.query.rows_per_patient - 3, 1.0))
                low, high = (tanh(atanh(r) + side * self.z * deviation) for side in (-1, 1))
                name = f"{self.query.of[one].column} and {self.query.of[other].column}"
                cells.append(
                    Cell(
                        self.query.name, group, name, r, low, high, "1", "the population", float(moments[0]), around
                    )
                )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        return typical_moments(patients, len(self.query.of))


def _correlation(six: Array) -> Array:
    """r from (n, sum v, sum w, sum v^2, sum v w, sum w^2); 0 where noise leaves no variance."""
    n, v, w, vv, vw, ww = six
    n = max(n, 1.0)
    spread_of = (vv - v * v / n) * (ww - w * w / n)
    inside = vv - v * v / n > 0 and ww - w * w / n > 0
    return np.array([(vw - v * w / n) / sqrt(spread_of) if inside else 0.0])
