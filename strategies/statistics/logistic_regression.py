"""Logistic regression by Newton's method, one charged round for each step, of predictors clipped to the plan's ranges.

A round has public coefficients b (zeros in the first, then a function of the noised sums before it: ``learned``). With
x = (1, x_1 .. x_(d-1)), every predictor scaled to -1 .. 1, y the outcome and p = 1 / (1 + exp(-x'b)), a row adds

    1 / 2,  (y - p) x,  h p (1 - p) x_i x_j for i <= j with h = 4 / sqrt(d + 1),  and its loss / (2 L),

that is a count, the gradient and the information of its log likelihood, and -log p or -log(1 - p).

Sensitivity: let u = |y - p|, the probability that b gives to what did not happen. Each x_i is at most 1, so |x'b| is at
most the 1-norm of b, u at most U = 1 / (1 + exp(-|b|_1)) and the loss at most L = log(1 + exp(|b|_1)). The gradient's
squared 2-norm is at most d u^2. p (1 - p) = u (1 - u), and there are d (d + 1) / 2 products of at most 1, so that of the
information is at most h^2 d (d + 1) / 2 u^2 (1 - u)^2 = 8 d u^2 (1 - u)^2. With count and loss the square is at most

    f(u) + 1/2,  f(u) = d u^2 + 8 d u^2 (1 - u)^2,  f'(u) = 2 d u (1 + 8 (1 - u)(1 - 2 u)) >= 0,

since (1 - u)(1 - 2 u) >= -1/8 (at u = 3/4). So f rises, and B^2 = f(U) + 1/2: the information costs nothing beside the
gradient, and h is the largest number of which that is true. b and thus B are the same for everybody, and public.

Estimate: each of the rounds of the second half gives normal equations (H_s + R) b = g_s + H_s b_s, R the ridge; their
mean by precision is solved. All are of the same patients with fresh noise, so the mean has less of it than the last
(as averaging iterates does: Polyak, Juditsky 1992). Away from the maximum each is wrong by the square of b_s - b.

Interval: of the coefficients in the population, on the log scale, and of their exponentials, the odds ratios. Sampling
is the inverse information, with a ridge A^-1 H A^-1, A = H + R (McCullagh, Nelder 1989, section 4.4; le Cessie, van
Houwelingen 1992). Noise is that of g_s and of H_s (b_s - b), propagated by A^-1.

When not to use it: where one predictor nearly tells the outcome, or several determine one another: without a ridge
there is then no figure. With a ridge, the interval is of the penalised coefficients, which lie nearer to zero.
"""

from dataclasses import dataclass, replace
from math import exp, expm1, log1p, sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.statistics import LogisticRegression, Range
from wardround.strategies.statistics.base import (
    LEAST_SIGNAL,
    Cell,
    Entries,
    Statistic,
    every_row,
    groups,
    middle_and_half,
    scaled,
)
from wardround.strategies.statistics.table import Table

LONGEST_STEP: Final = 3.0
"""The most that a round moves the scaled coefficients by, 2-norm: noise may make a step as long as it likes."""

SETTLED: Final = 1.0
"""Coefficients of a round that is used are within so much (1-norm: of anybody's log odds) of the estimate."""

UNDETERMINED: Final = "the columns determine one another, or the outcome, up to the noise"
UNSETTLED: Final = "the rounds did not settle: too much noise, or a predictor that tells the outcome"


@dataclass(frozen=True, slots=True)
class Step:
    """One round: its coefficients, shape (groups, d), and the noised sums (groups, width) of entries, unscaled."""

    at: Array
    sums: Array
    noise: float


@dataclass(frozen=True, slots=True)
class Newton(Statistic[LogisticRegression]):
    """``steps``: the rounds that are done, the first first; ``at``: this round's coefficients, None: zeros."""

    steps: tuple[Step, ...] = ()
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
        step = Step(self.coefficients, sums, noise)
        at = np.stack([self._next(*each, noise) for each in zip(self.coefficients, sums, strict=True)])
        return replace(self, steps=(*self.steps, step), at=at)

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        done = (*self.steps, Step(self.coefficients, sums, noise))
        cells: list[Cell] = []
        for place, group in enumerate(self.query.group_names):
            cells += self._group(group, [Step(each.at[place], each.sums[place], each.noise) for each in done])
        return cells

    def typical(self, patients: float) -> Array:
        """At zeros, where the outcome is as often 0 as 1 and nothing predicts it."""
        d = self.query.coefficients
        square = np.array([1.0, *(1 / 3 for _ in self.query.of), *(1.0 for _ in self.query.flags)])
        first, second = np.triu_indices(d)
        information = np.where(first == second, self._lift * square[first] / 4, 0.0)
        return patients * np.concatenate([[0.5], np.zeros(d), information, [0.5]])

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
        return 2.0 * table.codes[of.column] - 1.0 if of.column in self.query.flags else scaled(table, of)

    def _parts(self, sums: Array) -> tuple[float, Array, Array]:
        """Count, gradient and information of one group's sums."""
        d = self.query.coefficients
        half = np.zeros((d, d))
        half[np.triu_indices(d)] = sums[1 + d : -1] / self._lift
        return 2 * float(sums[0]), sums[1 : 1 + d], half + np.triu(half, 1).T

    def _penalty(self) -> Array:
        """R's diagonal: nothing of the intercept."""
        return np.array([0.0, *(self.query.ridge for _ in self._predictors)])

    def _next(self, at: Array, sums: Array, noise: float) -> Array:
        """The next coefficients of one group, whatever the noise has made of its sums.

        Directions in which the information does not stand out of its noise are stepped along as if it just did.
        """
        if not np.isfinite(sums).all():
            return at
        count, gradient, information = self._parts(sums)
        values, directions = np.linalg.eigh(information + np.diag(self._penalty()))
        held = np.maximum(values, LEAST_SIGNAL * noise / self._lift + 1e-9 * max(count, 1.0))
        step = directions @ ((directions.T @ (gradient - self._penalty() * at)) / held)
        length = float(np.linalg.norm(step))
        return np.asarray(at + step * (LONGEST_STEP / max(length, LONGEST_STEP)))

    def _group(self, group: tuple[str, ...], done: list[Step]) -> list[Cell]:
        """The figures of one group, whose part ``done`` has of every round."""
        found, count, noise = self._estimate(done[len(done) // 2 :])
        if isinstance(found, str):
            values = [(None, None, None)] * len(self._names())
        else:
            beta, covariance = found
            back = self._in_units()
            middle = back @ beta
            reach = self.z * np.sqrt(np.maximum(np.diag(back @ covariance @ back.T), 0.0))
            logs = np.stack([middle, middle - reach, middle + reach], axis=1)
            values = [tuple(map(float, three)) for three in (*logs, *np.exp(np.clip(logs[1:], -700, 700)))]
        note = found if isinstance(found, str) else ""
        cells = [
            Cell(self.query.name, group, what, *three, unit, "the population", count, noise, note)
            for (what, unit), three in zip(self._names(), values, strict=True)
        ]
        return [*cells, *self._last(group, done[-1])]

    def _estimate(self, used: list[Step]) -> tuple[tuple[Array, Array] | str, float, float]:
        """Scaled coefficients and their covariance from some rounds, or why there are none; count and its noise."""
        d = self.query.coefficients
        weights = np.array([1.0 if each.noise == 0 else each.noise**-2 for each in used])
        weights /= weights.sum()
        count, matrix, right = 0.0, np.zeros((d, d)), np.zeros(d)
        for weight, each in zip(weights, used, strict=True):
            n, gradient, information = self._parts(each.sums)
            count += weight * n
            matrix += weight * information
            right += weight * (gradient + information @ each.at)
        variances = [(weight * each.noise) ** 2 for weight, each in zip(weights, used, strict=True)]
        noise, whole = sqrt(sum(variances)), matrix + np.diag(self._penalty())
        least = LEAST_SIGNAL * noise / self._lift + 1e-9 * max(count, 1.0)
        if float(np.linalg.eigvalsh(whole).min()) <= least:
            return UNDETERMINED, count, 2 * noise
        beta = np.linalg.solve(whole, right)
        if max(float(np.abs(each.at - beta).sum()) for each in used) > SETTLED:
            return UNSETTLED, count, 2 * noise
        middle = self.query.rows_per_patient * matrix
        for variance, each in zip(variances, used, strict=True):
            away = each.at - beta
            # Of N v for a symmetric N whose upper triangle has variance 1: |v|^2 I + v v' - diag(v^2).
            of_information = (away @ away) * np.eye(d) + np.outer(away, away) - np.diag(away**2)
            middle = middle + variance * (np.eye(d) + of_information / self._lift**2)
        inverse = np.linalg.inv(whole)
        return (beta, inverse @ middle @ inverse), count, 2 * noise

    def _last(self, group: tuple[str, ...], last: Step) -> list[Cell]:
        """How far the last round was from the maximum, and how well its coefficients fit; of one patient."""
        count, gradient, _ = self._parts(last.sums)
        left = float(np.abs(gradient - self._penalty() * last.at).max())
        deviance = 4 * self._most_loss
        figures = (
            ("largest gradient of the last round", left, last.noise),
            ("deviance of the last round", deviance * float(last.sums[-1]), deviance * last.noise),
        )
        each = max(count, 1.0)
        return [
            Cell(
                self.query.name, group, what, value / each, (value - self.z * noise) / each,
                (value + self.z * noise) / each, "per patient", "these patients", count, 2 * last.noise,
            )
            for what, value, noise in figures
        ]  # fmt: skip

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
