"""How well a released model of survival does: c-index, Brier score at each time and integrated, by group.

Sensitivity: with k times, a patient who has the event or is censored in interval i, or is seen beyond the last, adds

* 1 to the cell of that outcome and of the bin of its risk,

and, where the plan says the baseline, so that the model predicts S(t_j) = baseline_j ** r,

* 1/2 to the count of that outcome: a count of its own, so that an outcome is known better than by the sum of its bins,
* for each t_j that it was seen beyond, s ((1 - S(t_j))^2 - 1/2), and for each t_j by which it had the event
  s (S(t_j)^2 - 1/2), with s = sqrt(2 / k): k numbers of at most s / 2, to the loss of t_j and of interval i or of those
  seen beyond t_j,

so B = 1 without the baseline, and with it sqrt(1 + 1/4 + k s^2 / 4) = sqrt(7) / 2, whatever the number of times and of
bins. r is a fixed function of the row: the model was released before, and is the plan's. A patient of k rows has each
weighted 1 / k, so counts as one.

Estimands: the c-index is that of ``concordance``, the Brier scores those of ``graf``, both of times on the plan's grid.

Interval: of the population that these patients are a sample of; sampling and noise. That of the c-index is Fieller's,
those of the scores are by the delta method; within a bin losses are taken for those of its middle, for sampling alone.

When not to use it: on a grid whose last time few are seen beyond, or with fewer events than four deviations of the
noise of their count. The cells are (2 k + 1) times the bins: few times and about eight bins are enough.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array, Indices
from wardround.protocol.evaluations import SurvivalEvaluation
from wardround.strategies.statistics.base import NOISY, Cell, Entries, Statistic, margins, slopes
from wardround.strategies.statistics.bounded import unit
from wardround.strategies.statistics.concordance import concordance
from wardround.strategies.statistics.graf import brier_scores, loss_places, losses_of
from wardround.strategies.statistics.survival import events_and_at_risk
from wardround.strategies.statistics.table import Table

COUNT: Final = 0.5
"""What a patient adds to the count of its outcome."""


class SurvivalEvaluations(Statistic[SurvivalEvaluation]):
    @property
    def bound(self) -> float:
        return sqrt(1 + COUNT**2 + 0.5) if self.query.baseline else 1.0

    def entries(self, table: Table) -> Entries:
        query = self.query
        # A risk that is no number says nothing of the outcome.
        log_risk = np.nan_to_num(table.scores[query.name], nan=0.0, posinf=700.0, neginf=-700.0)
        bin_of = np.minimum((query.bins / (1 + np.exp(-np.clip(log_risk, -700, 700)))).astype(np.int64), query.bins - 1)
        interval = np.searchsorted(query.times, table.numbers[query.time])
        had = table.codes[query.outcome] == 1
        outcome = np.where(interval == len(query.times), 2 * len(query.times), interval + ~had * len(query.times))
        places, values = (outcome * query.bins + bin_of)[:, None], np.ones((table.rows, 1))
        if not query.baseline:
            return Entries(places, values)
        cells = query.outcomes * query.bins
        at, losses = self._losses(log_risk, outcome)
        return Entries(
            np.column_stack([places, cells + outcome, cells + query.outcomes + at]),
            np.column_stack([values, np.full(table.rows, COUNT), losses]),
        )

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells = []
        for group, numbers, groups in margins(self.query, sums):
            around = noise * sqrt(groups)
            tally = self._tally(numbers, around)
            cells.append(self._concordance(group, tally))
            if self.query.baseline:
                cells += self._scores(group, tally, around)
        return cells

    def typical(self, patients: float) -> Array:
        """Of as many patients with every outcome and in every bin."""
        query = self.query
        table = np.full((query.outcomes, query.bins), patients / (query.outcomes * query.bins))
        if not query.baseline:
            return table.ravel()
        losses = np.einsum("ob,obl->l", table, self._losses_of_cells())
        return np.concatenate([table.ravel(), COUNT * table.sum(axis=1), losses])

    @property
    def _scale(self) -> float:
        """s."""
        return sqrt(2 / len(self.query.times))

    def _losses(self, log_risk: Array, outcome: Indices) -> tuple[Indices, Array]:
        """Of each row the places of its k losses among these, and what it adds to them; shapes (rows, k)."""
        risk = np.exp(np.clip(log_risk, -700, 700))[:, None]
        lives = np.exp(risk * np.log(self.query.baseline))
        loss, counts = losses_of(lives, outcome)
        return loss_places(len(self.query.times), outcome), self._scale * np.where(counts, loss - 0.5, 0.0)

    def _losses_of_cells(self) -> Array:
        """What a patient in the middle of a bin adds to the losses: shape (outcomes, bins, losses)."""
        query = self.query
        middle = (np.arange(query.bins) + 0.5) / query.bins
        outcome = np.repeat(np.arange(query.outcomes), query.bins)
        at, value = self._losses(np.tile(np.log(middle / (1 - middle)), query.outcomes), outcome)
        found = np.zeros((len(outcome), query.width - query.outcomes * (query.bins + 1)))
        np.put_along_axis(found, at, value, axis=1)
        return found.reshape(query.outcomes, query.bins, -1)

    def _tally(self, numbers: Array, noise: float) -> "Tally":
        """The table is mixed by least squares from its cells and the counts of outcomes, where there are these.

        Variances of the two are ``bins`` and 1 / COUNT^2; what is known of an outcome moves its cells alike.
        """
        query = self.query
        table = numbers[: query.outcomes * query.bins].reshape(query.outcomes, query.bins)
        if not query.baseline:
            return Tally(table, noise**2 * np.eye(query.bins), np.zeros(0))
        counts, losses = np.split(numbers[table.size :], [query.outcomes])
        part = 1 / (query.bins + 1 / COUNT**2)
        mixed = table + part * (counts / COUNT - table.sum(axis=1))[:, None]
        return Tally(mixed, noise**2 * (np.eye(query.bins) - part), losses)

    def _concordance(self, group: tuple[str, ...], tally: "Tally") -> Cell:
        value, ends = concordance(tally.table, tally.noise, self.z)
        low, high = (None, None) if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))
        events = len(self.query.times)
        cell = Cell(
            self.query.name, group, "c-index", unit(value), low, high, "1", "the population",
            float(tally.table[:events].sum()), sqrt(events) * tally.count_noise,
        )  # fmt: skip
        return cell if ends else cell.hidden(NOISY)

    def _scores(self, group: tuple[str, ...], tally: "Tally", noise: float) -> list[Cell]:
        query, counts, k = self.query, tally.table.sum(axis=1), len(self.query.times)

        def of(counts: Array, losses: Array) -> Array:
            return brier_scores(query.times, counts, losses / self._scale, 0.5)

        by_count = slopes(lambda each: of(each, tally.losses), counts, 0.1 * tally.count_noise + 1e-3)
        by_loss = slopes(lambda each: of(counts, each), tally.losses, 0.1 * noise + 1e-3)
        by_noise = (tally.count_noise**2 * by_count**2).sum(axis=0) + (noise**2 * by_loss**2).sum(axis=0)
        by_patient = by_count[:, None] + self._losses_of_cells() @ by_loss
        by_sampling = np.einsum("ob,obs->s", np.maximum(tally.table, 0.0), by_patient**2)
        values, reach = of(counts, tally.losses), self.z * np.sqrt(by_sampling + by_noise)
        unit = self.units.get(query.time, "1")
        names = [f"Brier score at {time:g} {unit}" for time in query.times]
        names.append(f"integrated Brier score until {query.times[-1]:g} {unit}")
        _, at_risk = events_and_at_risk(counts)
        beyond = np.append(at_risk[1:], counts[-1])
        # A score of a time divides by those who are seen beyond it, the integrated one by those beyond the last.
        there = [*beyond.tolist(), float(beyond[-1])]
        outcomes = [2 * (k - time) - 1 for time in range(k)]
        return [
            Cell(
                query.name, group, name, float(value), max(0.0, float(value - half)), min(1.0, float(value + half)),
                "1", "the population", seen, sqrt(of_them) * tally.count_noise,
            )
            for name, value, half, seen, of_them in zip(
                names, values, reach, there, [*outcomes, 1], strict=True
            )
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tally:
    """The noised sums of one group: the table of outcome by bin, the covariance of a row's noise, and the losses."""

    table: Array
    noise: Array
    losses: Array

    @property
    def count_noise(self) -> float:
        """The deviation of the noise of an outcome's count."""
        return sqrt(max(float(self.noise.sum()), 0.0))
