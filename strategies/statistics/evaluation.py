"""How well a released model predicts an outcome: AUROC, AUPRC, calibration, Brier score and log loss, by group.

Sensitivity: a patient with outcome y and predicted probability p adds

* 1 to the one bin of p among the patients with outcome y,
* (p - middle of the bin) / (4 half its width) to the bin's place, 1/4 at most,
* 1/2 to the count of outcome y: a count of its own, so that a class is known better than by the sum of its bins,
* (p - y)^2 - 1/2, and min(loss, L) / L - 1/2 with L the plan's largest loss, 1/2 at most each,

so B = sqrt(1 + 1/16 + 1/4 + 1/4 + 1/4) = sqrt(29) / 4, whatever the number of bins; a row whose outcome is not stated
adds nothing. p is a fixed function of the row: the model was released before, and is the plan's. A patient of k rows
has each weighted 1 / k, so counts as one.

Interval: of the population that these patients are a sample of; sampling and noise. Counts of a class are the
least-squares mix of the two that there are. Ratios have Fieller's interval, ranks that of ``ranking``.

When not to use it: with a class of fewer patients than four deviations of the noise of its count there is no figure;
more bins than about ten cost exactness and gain little.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Evaluation
from wardround.strategies.statistics.base import NOISY, Cell, Entries, Statistic, margins
from wardround.strategies.statistics.bounded import each_end, unit
from wardround.strategies.statistics.fieller import Interval, fieller
from wardround.strategies.statistics.ranking import Class, auroc, average_precision
from wardround.strategies.statistics.table import Table

PLACE, COUNT = 0.25, 0.5
"""What a patient adds at most to the place in its bin, and what to the count of its class."""


class Evaluations(Statistic[Evaluation]):
    @property
    def bound(self) -> float:
        return sqrt(1 + PLACE**2 + COUNT**2 + 0.25 + 0.25)

    def entries(self, table: Table) -> Entries:
        bins, stated = self.query.bins, table.codes[self.query.outcome] < 2
        has = np.where(stated, table.codes[self.query.outcome], 0)
        # A score that is no number says nothing of the outcome.
        p = np.clip(np.nan_to_num(table.scores[self.query.name], nan=0.5), 0.0, 1.0)
        bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
        last = np.full(table.rows, 3 * bins)
        values = np.column_stack(
            [
                np.ones(table.rows),
                np.clip(PLACE * (2 * bins * p - (2 * bin_of + 1)), -PLACE, PLACE),
                np.full(table.rows, COUNT),
                np.square(p - has) - 0.5,
                log_loss(p, has.astype(np.float64), self.query.largest_loss) / self.query.largest_loss - 0.5,
            ]
        )
        places = np.column_stack([has * bins + bin_of, 2 * bins + bin_of, last + has, last + 2, last + 3])
        return Entries(places, np.where(stated[:, None], values, 0.0))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells = []
        for group, numbers, groups in margins(self.query, sums):
            tally = Tally.of(numbers, noise * sqrt(groups), self.query)
            for figure in tally.figures(self.z):
                value, (low, high) = figure.value, figure.interval or (None, None)
                cell = Cell(
                    self.query.name, group, figure.name, value, low, high, "1", "the population", figure.patients,
                    figure.noise,
                )  # fmt: skip
                cells.append(cell if figure.interval else cell.hidden(NOISY))
        return cells

    def typical(self, patients: float) -> Array:
        """Of a calibrated model whose probabilities are spread evenly over 0 .. 1."""
        bins, most = self.query.bins, self.query.largest_loss
        middle = _middles(bins)
        return np.concatenate(
            [
                patients / bins * (1 - middle),
                patients / bins * middle,
                np.zeros(bins),
                np.full(2, COUNT * patients / 2),
                patients * np.array([1 / 6 - 0.5, 0.5 / most - 0.5]),
            ]
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a group; ``patients`` are those behind it, with the deviation of their noise."""

    name: str
    value: float
    interval: Interval | None
    patients: float
    noise: float


@dataclass(frozen=True, slots=True)
class Tally:
    """The noised sums of one group. ``place`` is a bin's sum of scores less its middle, ``losses`` have a half off."""

    positive: Class
    negative: Class
    place: Array
    losses: Array
    noise: float
    query: Evaluation

    @classmethod
    def of(cls, numbers: Array, noise: float, query: Evaluation) -> "Tally":
        bins = query.bins
        counts = numbers[3 * bins : 3 * bins + 2] / COUNT
        negative, positive = (_class(numbers[at * bins : (at + 1) * bins], float(counts[at]), noise) for at in (0, 1))
        return cls(positive, negative, numbers[2 * bins : 3 * bins] / (PLACE * 2 * bins), numbers[-2:], noise, query)

    def figures(self, z: float) -> list[Figure]:
        """Every figure of the group; one whose interval would be everything has none."""
        noise = sqrt(self.positive.noise.sum())
        both, all_noise = self.positive.total + self.negative.total, sqrt(2) * noise
        rarer = min(self.positive.total, self.negative.total)
        area, precision = auroc(self.positive, self.negative, z), average_precision(self.positive, self.negative, z)
        return [
            Figure("AUROC", *_within(area), rarer, noise),
            Figure("AUPRC", *_within(precision), rarer, noise),
            Figure("Brier score", *self._loss(0, 1.0, z), both, all_noise),
            Figure(
                f"log loss (clipped at {self.query.largest_loss:g})", *self._loss(1, self.query.largest_loss, z),
                both, all_noise,
            ),
            Figure("observed minus predicted", *self._in_the_large(z), both, all_noise),
            *self._calibration(z),
        ]  # fmt: skip

    def _loss(self, number: int, most: float, z: float) -> tuple[float, Interval | None]:
        """The mean of a loss of 0 .. ``most``; its sampling variance is that of the bins' middles."""
        losses = self._losses_of_middles()[number]
        counts = np.maximum(np.stack([self.negative.counts, self.positive.counts]), 0.0)
        total, under = float(self.losses[number]), self.negative.total + self.positive.total
        squares, under_noise = float((counts * losses**2).sum()), float(self.positive.noise.sum() * 2)
        value = total / under if under else 0.0
        found = fieller(total, under, z, squares + self.noise**2, total, max(under, 0.0) + under_noise)
        share, ends = _within((0.5 + value, None if found is None else (0.5 + found[0], 0.5 + found[1])))
        return most * share, None if ends is None else (most * ends[0], most * ends[1])

    def _losses_of_middles(self) -> Array:
        """Brier score and log loss at the middle of each bin, each with a half off: (2, classes, bins)."""
        middle, most = _middles(self.query.bins), self.query.largest_loss
        has = np.array([[0.0], [1.0]])
        losses: Array = np.stack([np.square(middle - has), log_loss(middle, has, most) / most]) - 0.5
        return losses

    def _in_the_large(self, z: float) -> tuple[float, Interval | None]:
        """The share that has the outcome less the mean of what was predicted."""
        middle, ones = _middles(self.query.bins), np.ones(self.query.bins)
        parts = ((1 - middle, self.positive), (-middle, self.negative))
        over = sum(float(each @ of.counts) for each, of in parts) - float(self.place.sum())
        under = self.positive.total + self.negative.total
        var_over = sum(float(each @ of.covariance @ each) for each, of in parts) + len(middle) * self._place_noise**2
        covariance = sum(float(each @ of.covariance @ ones) for each, of in parts)
        var_under = sum(float(ones @ of.covariance @ ones) for _, of in parts)
        return over / under if under else 0.0, fieller(over, under, z, var_over, covariance, var_under)

    def _calibration(self, z: float) -> list[Figure]:
        """Of each bin the share that has the outcome, and the mean of what was predicted."""
        found, both = [], self.positive.counts + self.negative.counts
        spread, half = self.positive.noise[0, 0], 0.5 / self.query.bins
        for number, (low, high) in enumerate(pairwise(np.linspace(0, 1, self.query.bins + 1))):
            has, there = float(self.positive.counts[number]), float(both[number])
            patients = max(there, 0.0)
            # Sampling as in Wilson's interval (1927): of has - r there it is there r (1 - r), also where nobody has it.
            share = fieller(has, there, z, spread, spread - patients / 2, 2 * spread - patients)
            observed = has / there if there else 0.0, share
            sum_of = float(self.place[number])
            # Within a bin scores vary as if spread evenly, about whatever their mean is.
            inside = patients * half**2 / 3 + sum_of**2 / max(patients, 1.0)
            shift = fieller(sum_of, there, z, inside + self._place_noise**2, sum_of, patients + 2 * spread)
            middle = low + half
            value = middle + (sum_of / there if there else 0.0)
            interval = None if shift is None else (max(middle + shift[0], low), min(middle + shift[1], high))
            noise, name = sqrt(2 * spread), f"at {low:.3g} to {high:.3g}"
            found.append(Figure(f"observed {name}", *_within(observed), there, noise))
            found.append(Figure(f"predicted {name}", min(max(value, low), high), interval, there, noise))
        return found

    @property
    def _place_noise(self) -> float:
        """The noise of a bin's sum of scores."""
        return self.noise / (PLACE * 2 * self.query.bins)


def log_loss(p: Array, has: Array, most: float) -> Array:
    """-log of the probability of what happened, ``most`` at most."""
    told: Array = np.where(has > 0.5, p, 1 - p)
    return -np.log(np.maximum(told, np.exp(-most)))


def _class(bins: Array, count: float, noise: float) -> Class:
    """The histogram whose sum is the least-squares mix of that of its bins and of ``count``.

    Their variances are m s^2 and s^2 / COUNT^2; what is known of the sum moves every bin alike.
    """
    m, weight = len(bins), 1 / COUNT**2
    counts = bins + (count - bins.sum()) / (m + weight)
    return Class(counts, noise**2 * (np.eye(m) - 1 / (m + weight)))


def _middles(bins: int) -> Array:
    middles: Array = (np.arange(bins) + 0.5) / bins
    return middles


def _within(found: tuple[float, Interval | None]) -> tuple[float, Interval | None]:
    """A share and its interval, held to 0 .. 1."""
    return unit(found[0]), each_end(found[1], unit)
