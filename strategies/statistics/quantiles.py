"""Quantiles of a column's values, each clipped to the plan's range, from a noised binary tree of counts.

Sensitivity: a row adds 1 to one node of each level of the tree, the root left out, so its 2-norm is sqrt(levels) = B
(Hay, Rastogi, Miklau, Suciu 2010, section 4, there in the 1-norm). The nodes are then made to agree with one another by
their two passes (theorem 3), which is least squares; the root is the sum of its children.

Interval: of the quantile in the population. With F the number of values below x and n that of all, the ends are where
F - p n leaves 0 by z standard deviations, those of sampling, sqrt(n p (1 - p)), and of the noise of F - p n, which is
known exactly because F is linear in the noised counts. Between the borders of the finest intervals F is a straight
line.

When not to use it: for a tail that holds fewer patients than the noise of a count, the interval is the rest of the
range.
"""

from functools import lru_cache
from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.queries import Quantiles
from wardround.strategies.statistics.base import Cell, Entries, Statistic
from wardround.strategies.statistics.table import Table


class FromTree(Statistic[Quantiles]):
    @property
    def bound(self) -> float:
        return sqrt(self.query.levels)

    def entries(self, table: Table) -> Entries:
        of, levels = self.query.of, self.query.levels
        part = (np.clip(table.numbers[of.column], of.lower, of.upper) - of.lower) / (of.upper - of.lower)
        leaf = np.minimum((part * 2**levels).astype(np.int64), 2**levels - 1)
        depth = np.arange(1, levels + 1)
        place = 2**depth - 2 + (leaf[:, None] >> (levels - depth))
        return Entries(place, np.ones(place.shape))

    def answer(self, sums: Array, noise: float) -> list[Cell]:
        of, levels = self.query.of, self.query.levels
        unit = self.units.get(of.column, "1")
        borders = np.linspace(of.lower, of.upper, 2**levels + 1)
        cells = []
        for group, tree in zip(self.query.group_names, sums, strict=True):
            below = np.concatenate([[0.0], np.cumsum(consistent(tree[:, None], levels)[:, 0])])
            n = max(float(below[-1]), 1.0)
            for p in self.query.probabilities:
                excess = below - p * below[-1]
                deviation = np.sqrt(
                    n * p * (1 - p) * self.query.rows_per_patient + (noise * noise_of_excess(levels, p)) ** 2
                )
                value = _crossing(borders, _rising(excess))
                low = _crossing(borders, _rising(excess + self.z * deviation))
                high = _crossing(borders, _rising(excess - self.z * deviation))
                cells.append(
                    Cell(
                        self.query.name, group, f"quantile {p:g}", value, min(low, value), max(high, value), unit,
                        "the population", n, noise * float(noise_of_excess(levels, 0.0)[-1]),
                    )
                )  # fmt: skip
        return cells

    def typical(self, patients: float) -> Array:
        return np.concatenate([np.full(2**level, patients / 2**level) for level in range(1, self.query.levels + 1)])


def consistent(trees: Array, levels: int) -> Array:
    """The leaves, shape (2^levels, k), of k trees whose nodes are made to agree; ``trees`` has shape (nodes, k).

    Hay et al. 2010, theorem 3, for two children; a leaf has height 1.
    """
    nodes = [trees[2**depth - 2 : 2 ** (depth + 1) - 2] for depth in range(1, levels + 1)]
    best = [nodes[-1]]
    for depth in range(levels - 1, 0, -1):
        height = levels - depth + 1
        own = (2**height - 2 ** (height - 1)) / (2**height - 1)
        best.insert(0, own * nodes[depth - 1] + (1 - own) * _pairs(best[0]))
    agreed = best[0]
    for depth in range(2, levels + 1):
        off = (agreed - _pairs(best[depth - 1])) / 2
        agreed = best[depth - 1] + np.repeat(off, 2, axis=0)
    return agreed


@lru_cache(maxsize=64)
def noise_of_excess(levels: int, probability: float) -> Array:
    """Standard deviation of F - p n at every border, shape (2^levels + 1,), where every node's noise has one of 1."""
    leaves = consistent(np.eye(2 ** (levels + 1) - 2), levels)
    below = np.concatenate([np.zeros((1, leaves.shape[1])), np.cumsum(leaves, axis=0)])
    deviations: Array = np.sqrt(np.square(below - probability * below[-1]).sum(axis=1))
    return deviations


def _pairs(level: Array) -> Array:
    added: Array = level[0::2] + level[1::2]
    return added


def _rising(values: Array) -> Array:
    """The mean of the nearest rising sequences above and below: noise makes counts fall, and they do not."""
    above, under = np.maximum.accumulate(values), np.minimum.accumulate(values[::-1])[::-1]
    mean: Array = (above + under) / 2
    return mean


def _crossing(borders: Array, rising: Array) -> float:
    """Where a rising line through (border, value) is zero; the end of the range where it is not."""
    at = int(np.searchsorted(rising, 0.0))
    if at == 0:
        return float(borders[0])
    if at == len(rising):
        return float(borders[-1])
    low, high = rising[at - 1], rising[at]
    return float(borders[at - 1] + (borders[at] - borders[at - 1]) * (-low) / (high - low))
