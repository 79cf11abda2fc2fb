"""Survival on the plan's grid by group (Kaplan and Meier 1958), and a log-rank test between the groups (Mantel 1966).

Sensitivity: a row adds 1 to one number of its group: that of events or of censorings in the interval of its time, or of
those seen beyond the grid. B = 1. Who is at risk is a sum of these numbers, so it costs nothing more.

Interval: of survival in the population. The variance is Greenwood's (1926), S^2 sum d / (r (r - d)), and that by noise,
by the delta method. The log-rank statistic of k groups is u' (V + N)^-1 u with k - 1 degrees of freedom: u are events
minus expected events, V their hypergeometric covariance, N their covariance by noise. Without N the test would find
differences in the noise.

When not to use it: with a grid so fine, or groups so small, that fewer are at risk than the noise of a count.
"""

from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Survival
from wardround.strategies.statistics.base import Cell, Entries, Statistic, slopes, spread
from wardround.strategies.statistics.chi_square import upper_tail
from wardround.strategies.statistics.table import Table


class KaplanMeier(Statistic[Survival]):
    @property
    def bound(self) -> float:
        return 1.0

    def entries(self, table: Table) -> Entries:
        times = self.query.times
        interval = np.searchsorted(times, table.numbers[self.query.time])
        censored = (table.codes[self.query.event] == 0) * len(times)
        place = np.where(interval == len(times), 2 * len(times), interval + censored)
        return Entries(place[:, None], np.ones((table.rows, 1)))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, unit = [], self.units.get(self.query.time, "1")
        for group, numbers in zip(self.query.group_names, sums, strict=True):
            found, by_noise = survival(numbers), spread(survival, numbers, noise)
            events, at_risk = events_and_at_risk(numbers)
            chance = events / at_risk
            greenwood = np.cumsum(chance / np.maximum(at_risk - events, 1.0)) * self.query.rows_per_patient
            deviation = np.sqrt(found**2 * greenwood + by_noise**2)
            for time, value, reach, here in zip(self.query.times, found, self.z * deviation, at_risk, strict=True):
                low, high = max(0.0, float(value - reach)), min(1.0, float(value + reach))
                what, around = f"survival at {time:g} {unit}", noise * sqrt(len(numbers))
                cells.append(
                    Cell(
                        self.query.name, group, what, float(value), low, high, "1", "the population", float(here),
                        around,
                    )
                )  # fmt: skip
        return cells + self._test(sums, noise)

    def typical(self, patients: float) -> Array:
        return np.full(self.query.width, patients / self.query.width)

    def _test(self, sums: Array, noise: float) -> list[Cell]:
        if len(sums) < 2:
            return []
        observed, covariance = log_rank(sums)
        whole = covariance * self.query.rows_per_patient
        if noise:
            by = slopes(lambda numbers: log_rank(numbers.reshape(sums.shape))[0], sums.ravel(), 0.1 * noise)
            whole = whole + noise**2 * by.T @ by
        statistic = float(observed @ np.linalg.solve(whole, observed)) if np.linalg.det(whole) > 0 else 0.0
        group = ("all",) * len(self.query.by)
        name, freedom = self.query.name, len(observed)
        p = upper_tail(statistic, freedom)
        seen, around = float(sums.sum()), noise * sqrt(sums.size)
        return [
            Cell(name, group, f"log-rank chi-square ({freedom} df)", statistic, None, None, "1", "the population",
                 seen, around),
            Cell(name, group, "log-rank p", p, None, None, "1", "the population", seen, around),
        ]  # fmt: skip


def events_and_at_risk(numbers: Array) -> tuple[Array, Array]:
    """Events in each interval, not below 0, and who is at risk in it, at least 1; from (events, censored, beyond)."""
    count = len(numbers) // 2
    gone = numbers[:count] + numbers[count : 2 * count]
    at_risk = np.maximum(np.cumsum(gone[::-1])[::-1] + numbers[-1], 1.0)
    return np.clip(numbers[:count], 0.0, at_risk), at_risk


def survival(numbers: Array) -> Array:
    """The share that lives on after each time of the grid."""
    count = len(numbers) // 2
    gone = numbers[:count] + numbers[count : 2 * count]
    at_risk = np.maximum(np.cumsum(gone[::-1])[::-1] + numbers[-1], 1.0)
    # An estimate below zero events is left as it is: cut off at zero, noise would add events in every interval.
    lived: Array = np.cumprod(1 - np.minimum(numbers[:count] / at_risk, 1.0))
    return np.minimum(np.maximum(lived, 0.0), 1.0)


def log_rank(sums: Array) -> tuple[Array, Array]:
    """Events minus expected events of all groups but the last, and their covariance (Mantel 1966)."""
    count = sums.shape[1] // 2
    events = sums[:, :count]
    gone = events + sums[:, count : 2 * count]
    at_risk = np.maximum(np.cumsum(gone[:, ::-1], axis=1)[:, ::-1] + sums[:, -1:], 0.0)
    n, d = np.maximum(at_risk.sum(axis=0), 1.0), events.sum(axis=0)
    share = at_risk / n
    observed = (events - share * d).sum(axis=1)[:-1]
    factor = np.maximum(d, 0.0) * np.maximum(n - d, 0.0) / np.maximum(n - 1, 1.0)
    covariance = -(share * factor) @ share.T + np.diag((share * factor).sum(axis=1))
    return observed, covariance[:-1, :-1]
