"""Events, person-time and their rate in each interval of the plan's grid: the piecewise-exponential table.

The rates are the maximum likelihood estimates of a hazard that is constant on each interval (Friedman 1982), and the
table is all that such a model with groups as its covariates needs.

Sensitivity: a row adds 1 to the events of one interval at most, and to each interval half of the part of it that was
lived through, at most 1/2: for k intervals its 2-norm is at most sqrt(1 + k / 4) = B. Time is cut at the grid's end.

Interval: of the rate in the population. The variance of a rate d / T by sampling is d / T^2, by noise that of a ratio
of two noised sums (the delta method).

When not to use it: on intervals in which fewer live than the noise of a count; take a coarser grid.
"""

from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import PiecewiseExponential
from wardround.strategies.statistics.base import Cell, Entries, Statistic, every_row
from wardround.strategies.statistics.table import Table

_OF_TIME: Final = 0.5
"""How much of the bound a whole interval has that was lived through."""


class Rates(Statistic[PiecewiseExponential]):
    @property
    def bound(self) -> float:
        return sqrt(1 + len(self.query.times) * _OF_TIME**2)

    def entries(self, table: Table) -> Entries:
        times = np.array(self.query.times)
        begins, lasts = np.concatenate([[0.0], times[:-1]]), np.diff(times, prepend=0.0)
        time = table.numbers[self.query.time]
        interval = np.searchsorted(times, time)
        seen = (table.codes[self.query.event] == 1)[:, None] & (interval[:, None] == np.arange(len(times)))
        lived = np.clip((time[:, None] - begins) / lasts, 0.0, 1.0)
        return every_row(*seen.T.astype(np.float64), *(_OF_TIME * lived).T)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, unit = [], self.units.get(self.query.time, "1")
        times, count = self.query.times, len(self.query.times)
        lasts, by_time = np.diff(times, prepend=0.0), noise / _OF_TIME
        for group, numbers in zip(self.query.group_names, sums, strict=True):
            for j, (time, last) in enumerate(zip(times, lasts, strict=True)):
                events, whole = float(numbers[j]), float(numbers[count + j]) / _OF_TIME
                lived = max(whole, 1.0) * last
                rate = events / lived
                of_sampling = max(events, 0.0) * self.query.rows_per_patient
                deviation = sqrt(of_sampling + noise**2 + (rate * by_time * last) ** 2) / lived
                what, low = f"rate until {time:g} {unit}", max(0.0, rate - self.z * deviation)
                cells.append(
                    Cell(
                        self.query.name, group, what, max(rate, 0.0), low, max(0.0, rate + self.z * deviation),
                        f"1/{unit}", "the population", whole, by_time,
                    )
                )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        count = len(self.query.times)
        left = patients * (1 - (np.arange(count) + 0.5) / (count + 1))
        return np.concatenate([np.full(count, patients / (count + 1)), _OF_TIME * left])
