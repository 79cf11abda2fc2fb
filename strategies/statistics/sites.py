"""In how many hospitals a group has patients: one more number of each group, where a query has ``at_least_sites``.

A sum of patients does not say how many hospitals they come from. So each hospital adds to each of its groups

    a min(c / k, 1),

c the patients that it has there, k the query's ``patients_at_site``. The sum is a times a number that is at most the
number of hospitals with such a patient, and a hospital with k of them counts in full.

Sensitivity: a patient's rows have weights of m = ``rows_per_patient`` at most together; with an m-th of each, the
patient moves c of all groups by 1 at most (1-norm), and so min(c / k, 1) by 1 / k at most (2-norm). a = k m B / 2 makes
that half of the m B by which it moves the statistic: all together move by sqrt(5) / 2 m B. A number of hospitals with k
patients or more would not do: one patient moves it by a whole hospital.

Reading: a group of fewer hospitals than t is shown with probability (1 - confidence) / 2 at most: only where the noised
number, less as many deviations of its noise, exceeds t - 1. A margin is of as many hospitals as its best group, found
among g of them, so each is held to a g-th of that probability.
"""

from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.query import BaseQuery

PART: Final = 0.5
"""Of what a patient moves the statistic by, how much it moves the numbers of hospitals by."""


def longer(query: BaseQuery) -> float:
    """By what the numbers of hospitals make a patient's vector longer."""
    return sqrt(1 + PART**2) if query.at_least_sites else 1.0


def of_one_site(query: BaseQuery, bound: float, patients: Array) -> Array:
    """What a site adds, shape (groups,), with so many ``patients`` in each group; ``bound``: B."""
    return _full(query, bound) * np.minimum(patients / query.patients_at_site, 1.0)


def enough(query: BaseQuery, bound: float, numbers: Array, noise: float, z: float) -> bool:
    """Whether ``at_least_sites`` hospitals are known to have patients in one of the groups that ``numbers`` are of.

    Args:
        numbers: noised sums of ``of_one_site``, each with noise of standard deviation ``noise``.
        z: of the intervals.
    """
    deviations = NormalDist().inv_cdf(1 - (1 - NormalDist().cdf(z)) / len(numbers))
    # Sums are kept in single precision: without noise, t - 1 hospitals are not more than t - 1.
    one_less = _full(query, bound) * (query.at_least_sites - 1) * (1 + 1e-6)
    return bool(numbers.max() - deviations * noise > one_less)


def _full(query: BaseQuery, bound: float) -> float:
    """a."""
    return PART * query.patients_at_site * query.rows_per_patient * bound
