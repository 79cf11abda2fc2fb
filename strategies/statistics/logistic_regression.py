"""Logistic regression by Newton's method, one charged round for each step, of predictors clipped to the plan's ranges.

A round has public coefficients b (zeros in the first, then a function of the noised sums before it: ``learned``). With
x = (1, x_1 .. x_(d-1)), every predictor scaled to -1 .. 1, y the outcome and p = 1 / (1 + exp(-x'b)), a row adds

    1 / 2,  (y - p) x,  h p (1 - p) x_i x_j for i <= j with h = 4 / sqrt(d + 1),  and its loss / (2 L),

that is a count, the gradient and the information of its log likelihood, and -log p or -log(1 - p).

Sensitivity: let u = |y - p|, the probability that b gives to what did not happen. Each x_i is at most 1, so |x'b| is at
most the 1-norm of b, u at most U = 1 / (1 + exp(-|b|_1)) and the loss at most L = log(1 + exp(|b|_1)). The gradient's
squared 2-norm is at most d u^2. p (1 - p) = u (1 - u), and there are d (d + 1) / 2 products of at most 1, so the
information's is at most h^2 d (d + 1) / 2 u^2 (1 - u)^2 = 8 d u^2 (1 - u)^2. With count and loss the square is at most

    f(u) + 1/2,  f(u) = d u^2 + 8 d u^2 (1 - u)^2,  f'(u) = 2 d u (1 + 8 (1 - u)(1 - 2 u)) >= 0,

since (1 - u)(1 - 2 u) >= -1/8 (at u = 3/4). So f rises, and B^2 = f(U) + 1/2: the information costs nothing beside the
gradient, and h is the largest number of which that is true. b and thus B are the same for everybody, and public.

Estimate: of the rounds of the second half together (``newton``), on the log scale in the columns' units; odds ratios
are its exponentials. Interval: of the population's (McCullagh, Nelder 1989, section 4.4), with the noise of each round.

When not to use it: where one predictor nearly tells the outcome, or several determine one another: without a ridge
there is then no figure. With a ridge, the interval is of the penalised coefficients, which lie nearer to zero.
"""

from dataclasses import dataclass, replace
from math import exp, log1p, sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import LogisticRegression
from wardround.protocol.query import Range
from wardround.strategies.statistics.base import Cell, Entries, Statistic, every_row, groups, middle_and_half, scaled
from wardround.strategies.statistics.newton import Point, estimate_of, mean_of, next_of
from wardround.strategies.statistics.table import Table

NARROW: Final = 1 / 4
"""The deviation of a predictor that is scaled to -1 .. 1, for the error to expect: eight of them fill its range.

Ranges are chosen without a look at the data, so they are wide: of heart disease, those of 20 to 90 years and of 80 to
200 mm[Hg] are as wide as this.
"""

RARE: Final = 0.2
"""How often a flag and the outcome are 1, for the error to expect; nobody's probability is nearer to 1/2 than that."""


@dataclass(frozen=True, slots=True)
class Newton(Statistic[LogisticRegression]):
    """``done``: of every round that is done, the first first, its groups' points; ``at``: this round's coefficients."""

    done: tuple[list[Point], ...] = ()
    at: Array | None = None

    @property
    def coefficients(self) -> Array:
        """Where this round takes its sums, shape (groups, d), of scaled predictors."""
        return np.zeros((self.query.groups, self.query.coefficients)) if self.at is None else self.at

    @property
    def bound(self) -> float:
        wrong = 1 / (1 + exp(-self._most))
        return sqrt(self.query.coefficients * wrong**2 * (1 + 8 * (1 - wrong) ** 2) + 0.5)

    def entries(self, table: Table) -> Entries:
        outcome = 2.0 * table.codes[self.query.outcome] - 1.0
        x = np.stack([np.ones(table.rows), *(self._scaled(table, of) for of in self._predictors)], axis=1)
        towards = outcome * np.einsum("ij,ij->i", x, self.coefficients[groups(table, self.query.by)])
        wrong = 0.5 * (1 - np.tanh(towards / 2))
        first, second = np.triu_indices(self.query.coefficients)
        return every_row(
            np.full(table.rows, 0.5),
            *((outcome * wrong)[:, None] * x).T,
            *((self._lift * wrong * (1 - wrong))[:, None] * x[:, first] * x[:, second]).T,
            np.logaddexp(0, -towards) / (2 * self._most_loss),
        )

    def learned(self, sums: Array, noise: float) -> "Newton":
        points = self._points(sums, noise)
        return replace(self, done=(*self.done, points), at=np.stack([next_of(each, self._penalty) for each in points]))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        rounds = (*self.done, self._points(sums, noise))
        losses = 2 * self._most_loss * sums[:, -1]
        cells: list[Cell] = []
        for place, group in enumerate(self.query.group_names):
            points = [each[place] for each in rounds]
            cells += self._fitted(group, points[len(points) // 2 :])
            cells += self._last(group, points[-1], float(losses[place]))
        return cells

    def typical(self, patients: float) -> Array:
        """On the way to a maximum where every scaled coefficient is 1: see ``NARROW`` and ``RARE``.

        The likelihood is taken for a square, so that the second round is at the maximum and has its bound.
        """
        d, flags = self.query.coefficients, len(self.query.flags)
        mean = np.array([1.0, *np.zeros(len(self.query.of)), *np.full(flags, 2 * RARE - 1)])
        square = np.array([1.0, *np.full(len(self.query.of), NARROW**2), *np.ones(flags)])
        information = RARE * (1 - RARE) * (np.outer(mean, mean) + np.diag(square - mean**2))
        gradient = information @ (1.0 - self.coefficients[0])
        return patients * np.concatenate(
            [[0.5], gradient, self._lift * information[np.triu_indices(d)], [0.25 / self._most_loss]]
        )

    @property
    def _most(self) -> float:
        """The most that anybody's log odds can be, of any group, in absolute value."""
        return float(np.abs(self.coefficients).sum(axis=1).max())

    @property
    def _most_loss(self) -> float:
        return self._most + log1p(exp(-self._most))

    @property
    def _lift(self) -> float:
        """h."""
        return 4 / sqrt(self.query.coefficients + 1)

    @property
    def _predictors(self) -> tuple[Range, ...]:
        return (*self.query.of, *(Range(column=name, lower=0, upper=1) for name in self.query.flags))

    def _scaled(self, table: Table, of: Range) -> Array:
        if of.column not in self.query.flags:
            return scaled(table, of)
        return np.asarray(2.0 * table.codes[of.column] - 1.0, np.float64)

    @property
    def _penalty(self) -> Array:
        """Nothing of the intercept."""
        return np.array([0.0, *(self.query.ridge for _ in self._predictors)])

    def _points(self, sums: Array, noise: float) -> list[Point]:
        """Of each group what its noised sums say at this round's coefficients."""
        d, found = self.query.coefficients, []
        for at, numbers in zip(self.coefficients, sums, strict=True):
            half = np.zeros((d, d))
            half[np.triu_indices(d)] = numbers[1 + d : -1] / self._lift
            information = half + np.triu(half, 1).T
            found.append(Point(at, 2 * float(numbers[0]), numbers[1 : 1 + d], information, noise, noise / self._lift))
        return found

    def _fitted(self, group: tuple[str, ...], points: list[Point]) -> list[Cell]:
        """Coefficients, then odds ratios, of one group."""
        mean, found = mean_of(points)[0], estimate_of(points, self._penalty, self.query.rows_per_patient)
        empty = Cell(
            self.query.name, group, "", None, None, None, "", "the population", mean.count, 2 * mean.noise,
            found if isinstance(found, str) else "",
        )  # fmt: skip
        cells = [replace(empty, quantity=what, unit=unit) for what, unit in self._names()]
        if isinstance(found, str):
            return cells
        back = self._in_units()
        middle = back @ found.coefficients
        reach = self.z * np.sqrt(np.maximum(np.diag(back @ found.covariance @ back.T), 0.0))
        logs = np.stack([middle, middle - reach, middle + reach], axis=1)
        values = [*logs.tolist(), *np.exp(np.clip(logs[1:], -700, 700)).tolist()]
        return [
            replace(cell, value=value, low=low, high=high)
            for cell, (value, low, high) in zip(cells, values, strict=True)
        ]

    def _last(self, group: tuple[str, ...], last: Point, loss: float) -> list[Cell]:
        """How far the last round was from the maximum, and how well its coefficients fit; of one patient."""
        left, count = float(np.abs(last.gradient - self._penalty * last.at).max()), max(last.count, 1.0)
        empty = Cell(
            self.query.name, group, "", None, None, None, "per patient", "these patients", last.count, 2 * last.noise
        )
        deviance, reach = 2 * loss / count, 4 * self.z * self._most_loss * last.noise / count
        return [
            replace(empty, quantity="largest gradient, last round", value=left / count),
            replace(empty, quantity="noise of a gradient", value=last.noise / count),
            replace(
                empty, quantity="deviance, last round", value=deviance, low=deviance - reach, high=deviance + reach
            ),
        ]

    def _in_units(self) -> Array:
        """What scaled coefficients are multiplied by to be those of predictors in their units."""
        middles, halves = (np.array(each) for each in zip(*map(middle_and_half, self._predictors), strict=True))
        back = np.diag(np.concatenate([[1.0], 1 / halves]))
        back[0, 1:] = -middles / halves
        return back

    def _names(self) -> list[tuple[str, str]]:
        names = [(of.column, f"per {self.units.get(of.column, '1')}") for of in self.query.of]
        names += [(name, "1 against 0") for name in self.query.flags]
        ratios = [(f"odds ratio of {name}", unit) for name, unit in names]
        return [("intercept", "1"), *names, *ratios]
