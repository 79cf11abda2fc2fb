"""How well a released model marks structures: Dice of each, the mean of patients and of all their voxels together.

All pictures of a patient are one. With P voxels of a structure predicted, R in the reference and B in both, Dice is
d = 2 B / (P + R) (Dice 1945), and v = min((P + R) / (2 L), 1) the volume, L the plan's largest. Where neither has the
structure, Dice is not defined: such patients are counted apart and are in no Dice. Where one alone has it, d = 0.

Sensitivity: of each of K structures a patient adds

* 1 to one of three counts: with the structure in the reference, in the prediction alone, or in neither,

and where it is in either

* d - 1/2, and half of d^2 - 1/2: 1/2 and 1/4 at most,
* where the plan has L: v - 1/2 and d v - 1/2, 1/2 at most each, and half of v^2 - 1/2, d v^2 - 1/2 and d^2 v^2 - 1/2,
  1/4 at most each,

so B = sqrt(K (1 + 1/4 + 1/16)) = sqrt(21 K) / 4 without L, and sqrt(K (21/16 + 1/2 + 3/16)) = sqrt(2 K) with it,
reached at d = v = 1. What the model marks is a fixed function of the picture: the model was released before, and is
the plan's. The k rows of a patient hold its sums each, weighted 1 / k, so it counts as one.

Estimands: the mean of d over patients is what papers report (Maier-Hein et al. 2024, "Metrics reloaded"); the pooled
Dice is sum of d v / sum of v, which is 2 sum B / sum (P + R) where nobody is larger than L: large structures weigh
more. Who is larger than L keeps its Dice there, and weighs as L. Both fall with every patient without the structure in
whom some is marked, so the share of these is said too.

Interval: of the population that these patients are a sample of; sampling and noise, as of a ratio (Fieller 1954). The
squares give the sampling variance, whatever the distributions; half of each, because only an interval hangs on them.

When not to use it: pooled with an L far above most volumes, whose noise is in its unit; and for many structures at
once, of which each makes the noise of all larger.
"""

from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array, Indices
from wardround.protocol.evaluations import SegmentationEvaluation
from wardround.strategies.statistics.base import NOISY, Cell, Entries, Statistic, margins
from wardround.strategies.statistics.bounded import bounded_mean, each_end, share, unit
from wardround.strategies.statistics.fieller import Interval, fieller
from wardround.strategies.statistics.table import Table

SQUARE: Final = 0.5
"""The part of a square that a patient adds."""


class SegmentationEvaluations(Statistic[SegmentationEvaluation]):
    @property
    def bound(self) -> float:
        pooled = 0.0 if self.query.largest_volume is None else 2 / 4 + 3 * SQUARE**2 / 4
        return sqrt(len(self.query.structures) * (1 + 1 / 4 + SQUARE**2 / 4 + pooled))

    def entries(self, table: Table) -> Entries:
        query, rows, structures = self.query, table.rows, len(self.query.structures)
        both, predicted, there = np.moveaxis(_of_patients(table.overlaps[query.name], table.patient), -1, 0)
        either = predicted + there
        parts = self._parts(np.clip(2 * both / np.where(either > 0, either, 1.0), 0, 1), either / 2)
        # Shape (rows, structures, numbers but two): a patient is in one of the three counts.
        parts = np.where((either > 0)[..., None], parts, 0.0)
        values = np.concatenate([np.ones((rows, structures, 1)), parts], axis=2)
        places = np.broadcast_to([0, *range(3, query.each)], values.shape) + query.each * np.arange(structures)[:, None]
        places[..., 0] += np.where(there > 0, 0, np.where(predicted > 0, 1, 2))
        flat = (rows, structures * values.shape[2])
        return Entries(places.reshape(flat), values.reshape(flat))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        cells, most = [], self.query.largest_volume
        for group, numbers, groups in margins(self.query, sums):
            around = noise * sqrt(groups)
            for name, of in zip(self.query.structures, numbers.reshape(-1, self.query.each), strict=True):
                # Each group of patients is two of the three counts.
                either, without, two = float(of[0] + of[1]), float(of[1] + of[2]), sqrt(2) * around
                mean = bounded_mean(either, of[3], of[4] / SQUARE, self.z, around, two)
                cells.append(self._cell(group, f"mean Dice of {name}", mean, either, two))
                if most is not None:
                    pooled = self._pooled(either / 2, of[5:], around)
                    cells.append(self._cell(group, f"pooled Dice of {name} (clipped at {most:g})", pooled, either, two))
                alarms = share(of[1], of[2], self.z, around)
                cells.append(self._cell(group, f"{name} marked where there is none", alarms, without, two))
        return cells

    def typical(self, patients: float) -> Array:
        """Of patients of whom half have every structure, and of the others half have it marked.

        Dice and volumes, where there are any, are spread evenly over 0 .. 1 and 0 .. the largest.
        """
        first = [0.0, SQUARE * (1 / 3 - 0.5)]
        pooled = [0.0, 1 / 4 - 0.5, *(SQUARE * (each - 0.5) for each in (1 / 3, 1 / 6, 1 / 9))]
        parts = 3 / 4 * np.array([*first, *(() if self.query.largest_volume is None else pooled)])
        one = np.concatenate([[1 / 2, 1 / 4, 1 / 4], parts])
        return np.tile(patients * one, len(self.query.structures))

    def _parts(self, dice: Array, volume: Array) -> Array:
        """What a patient with the structure adds behind the counts; from and to shapes (rows, K) and (rows, K, n)."""
        parts = [dice - 0.5, SQUARE * (dice**2 - 0.5)]
        if self.query.largest_volume is not None:
            v = np.minimum(volume / self.query.largest_volume, 1.0)
            parts += [v - 0.5, dice * v - 0.5]
            parts += [SQUARE * (power * v**2 - 0.5) for power in (np.ones_like(dice), dice, dice**2)]
        return np.stack(parts, axis=2)

    def _pooled(self, half: float, of: Array, noise: float) -> tuple[float, Interval | None]:
        """Sum of d v over sum of v. Each has ``half`` of two noised counts put back, whose noise both share."""
        under, over = float(of[0]) + half, float(of[1]) + half
        v2, dv2, d2v2 = of[2:5] / SQUARE + half
        sampling = _no_variance_below_zero(np.array([[d2v2, dv2], [dv2, v2]]))
        spread = noise**2 * np.array([[3 / 2, 1 / 2], [1 / 2, 3 / 2]])
        (var_over, covariance), (_, var_under) = sampling + spread
        ends = fieller(over, under, self.z, var_over, covariance, var_under)
        return unit(over / under if under else 0.0), each_end(ends, unit)

    def _cell(
        self, group: tuple[str, ...], quantity: str, found: tuple[float, Interval | None], patients: float, noise: float
    ) -> Cell:
        low, high = found[1] or (None, None)
        cell = Cell(self.query.name, group, quantity, found[0], low, high, "1", "the population", patients, noise)
        return cell if found[1] else cell.hidden(NOISY)


def _of_patients(overlaps: Array, patient: Indices) -> Array:
    """Of each row the sums of its patient's rows: from and to shape (rows, structures, 3)."""
    _, number = np.unique(patient, return_inverse=True)
    sums = np.zeros_like(overlaps)
    np.add.at(sums, number, overlaps)
    of_row: Array = sums[number]
    return of_row


def _no_variance_below_zero(matrix: Array) -> Array:
    """The nearest matrix that is one of second moments: noise may have made of it what is none."""
    values, vectors = np.linalg.eigh(matrix)
    found: Array = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return found
