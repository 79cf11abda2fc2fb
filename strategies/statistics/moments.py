"""Moments of several columns together, which correlation and linear regression are functions of.

A row of values v_1 .. v_k in -1 .. 1 (``scaled``) adds 1, the values, and the products v_i v_j for i <= j: each of
these is at most 1, so the 2-norm is at most sqrt(1 + k + k (k + 1) / 2). (Sufficient statistics under noise: Dwork,
Smith 2009; Wang 2018, "Revisiting differentially private linear regression", algorithm AdaSSP without its ridge.)
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.query import Range
from wardround.strategies.statistics.base import Entries, every_row, scaled
from wardround.strategies.statistics.table import Table


def moments_bound(columns: int) -> float:
    return sqrt(1 + columns + columns * (columns + 1) / 2)


def moments_of(table: Table, columns: Sequence[Range]) -> Entries:
    """1, the values, and the products of the upper triangle row by row."""
    values = np.stack([scaled(table, of) for of in columns], axis=1)
    first, second = np.triu_indices(len(columns))
    return every_row(np.ones(table.rows), *values.T, *(values[:, first] * values[:, second]).T)


def matrix_of(moments: Array, columns: int) -> Array:
    """sum x x' for x = (1, v_1, .., v_k), shape (k + 1, k + 1), from the sums of ``moments_of``."""
    whole = np.zeros((columns + 1, columns + 1))
    whole[0] = moments[: columns + 1]
    first, second = np.triu_indices(columns)
    whole[first + 1, second + 1] = moments[columns + 1 :]
    return whole + np.triu(whole, 1).T


def typical_moments(patients: float, columns: int) -> Array:
    """The sums of ``patients`` whose values are spread evenly and have nothing to do with one another."""
    first, second = np.triu_indices(columns)
    return patients * np.concatenate([[1.0], np.zeros(columns), np.where(first == second, 1 / 3, 0.0)])
