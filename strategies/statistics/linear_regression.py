"""Ordinary least squares with an intercept, of values that are each clipped to the plan's range.

Sensitivity: that of ``moments``, with the outcome as the last column.

Interval: of the coefficients in the population. Their covariance by sampling is s^2 (X'X)^-1, as of any regression with
errors of one variance (Greene 2018, section 4.3); that by noise is by the delta method. Where the noise leaves X'X with
an eigenvalue below ``LEAST_SIGNAL`` standard deviations of a number's noise there is no estimate.

When not to use it: for columns that nearly determine one another; for a binary outcome; where clipping bends a line.
"""

from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import LinearRegression
from wardround.strategies.statistics.base import (
    LEAST_SIGNAL,
    Cell,
    Entries,
    Statistic,
    margins,
    middle_and_half,
    spread,
)
from wardround.strategies.statistics.moments import matrix_of, moments_bound, moments_of, typical_moments
from wardround.strategies.statistics.table import Table


class LeastSquares(Statistic[LinearRegression]):
    @property
    def bound(self) -> float:
        return moments_bound(len(self.query.of) + 1)

    def entries(self, table: Table) -> Entries:
        return moments_of(table, (*self.query.of, self.query.outcome))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, back = [], self._in_units()
        for group, moments, joined in margins(self.query, sums):
            around, n = noise * sqrt(joined), float(moments[0])
            matrix, right, squares = self._parts(moments)
            estimable = float(np.linalg.eigvalsh(matrix).min()) > LEAST_SIGNAL * around + 1e-9 * max(n, 1.0)
            if not estimable:
                cells += [
                    Cell(self.query.name, group, what, None, None, None, unit, "the population", n, around,
                         "the columns determine one another, up to the noise")
                    for what, unit in self._names()
                ]  # fmt: skip
                continue
            beta = np.linalg.solve(matrix, right)
            freedom = max(n - len(beta), 1.0)
            residual = max(0.0, float(squares - right @ beta)) / freedom
            covariance = residual * self.query.rows_per_patient * np.linalg.inv(matrix)
            by_sampling = np.diag(back @ covariance @ back.T)
            by_noise = spread(lambda m: back @ np.linalg.solve(*self._parts(m)[:2]), moments, around)
            found, deviation = back @ beta, np.sqrt(by_sampling + by_noise**2)
            found[0] += middle_and_half(self.query.outcome)[0]
            for (what, unit), value, reach in zip(self._names(), found, self.z * deviation, strict=True):
                cells.append(
                    Cell(
                        self.query.name, group, what, float(value), float(value - reach), float(value + reach), unit,
                        "the population", n, around,
                    )
                )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        return typical_moments(patients, len(self.query.of) + 1)

    def _parts(self, moments: Array) -> tuple[Array, Array, float]:
        """X'X, X'y and y'y of scaled values."""
        whole = matrix_of(moments, len(self.query.of) + 1)
        return whole[:-1, :-1], whole[:-1, -1], float(whole[-1, -1])

    def _in_units(self) -> Array:
        """What scaled coefficients are multiplied by to be those of values in their units; the outcome's middle lacks.

        y = middle_y + half_y (b_0 + sum b_j (x_j - middle_j) / half_j).
        """
        _, of_outcome = middle_and_half(self.query.outcome)
        middles, halves = (np.array(each) for each in zip(*map(middle_and_half, self.query.of), strict=True))
        back = np.diag(np.concatenate([[1.0], 1 / halves]))
        back[0, 1:] = -middles / halves
        return np.asarray(of_outcome * back)

    def _names(self) -> list[tuple[str, str]]:
        outcome = self.units.get(self.query.outcome.column, "1")
        each = ((of.column, self.units.get(of.column, "1")) for of in self.query.of)
        return [("intercept", outcome), *((name, f"{outcome} per {unit}") for name, unit in each)]
