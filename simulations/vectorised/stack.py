"""The training patients of many hospitals behind one another, and batches of them as padded tables of rows.

Batches of a step differ in size from site to site. Sites are therefore put into groups of nearly equal batches, so that
little of a padded table is padding, and small enough that a group's arrays stay in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors import Cohort
from wardround.privacy.gradients import Array

Rows = npt.NDArray[np.int64]

MOST_PADDING: Final = 0.2
"""Of a padded table."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of each site of a group: ``sites`` (S,), ``features`` (S, B, ...), ``targets`` (S, B, T),
    ``counts`` (S,) of real rows.
    """

    sites: Rows
    features: npt.NDArray[Any]
    targets: Array
    counts: Rows


@dataclass(frozen=True, slots=True)
class Group:
    """Sites (S,) whose batches make one table: ``table`` (S, B) of rows, ``counts`` (S,) of real ones."""

    sites: Rows
    table: Rows
    counts: Rows


class Stack:
    """Every site's training records in one table, the last row of which is all zeros and stands for "none".

    ``patients`` (S,): of each site; ``first`` (S,): its first row.
    """

    def __init__(self, cohorts: Sequence[Cohort], width: int, values_at_once: int) -> None:
        """``width``: numbers of one record, and how many such numbers make a group; see ``networks.Networks``."""
        self.patients = np.array([cohort.train.patients for cohort in cohorts], np.int64)
        self.first = np.cumsum(self.patients) - self.patients
        self._features = _behind_one_another([cohort.train.features for cohort in cohorts])
        self._targets = _behind_one_another([cohort.train.targets for cohort in cohorts])
        self._records_at_once = max(1, values_at_once // width)

    @property
    def none(self) -> int:
        """The row that stands for no patient."""
        return len(self._features) - 1

    def groups(self, sites: Rows, rows: Rows, counts: Rows) -> Iterator[Group]:
        """The batches of a step in groups.

        Args:
            sites: (S,), those that take the step.
            rows: of their batches, the first site's, then the second's, and so on.
            counts: (S,), rows of each.
        """
        starts = np.cumsum(counts) - counts
        order = np.argsort(counts, kind="stable")
        rising, begin = counts[order], 0
        while begin < len(order):
            group = order[begin : begin + self._sites_at_once(rising[begin:])]
            begin += len(group)
            sizes = counts[group]
            places = np.arange(int(sizes.max(initial=0)))
            inside = places < sizes[:, None]
            table = np.where(inside, starts[group][:, None] + places, 0)
            yield Group(sites[group], np.where(inside, rows[table], self.none) if len(rows) else table, sizes)

    def load(self, group: Group) -> Batch:
        """The records of a group."""
        return Batch(group.sites, self._features[group.table], self._targets[group.table], group.counts)

    def _sites_at_once(self, rising: Rows) -> int:
        """How many sites from the first on make a group: until it is full, or a fifth of it would be padding."""
        sizes = rising[: max(1, self._records_at_once // max(1, int(rising[0])))]
        table = sizes * np.arange(1, len(sizes) + 1)
        over = np.flatnonzero(table - np.cumsum(sizes) > MOST_PADDING * table)
        return int(over[0]) if len(over) else len(sizes)


def _behind_one_another(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """All rows, and a row of zeros."""
    return np.concatenate([*arrays, np.zeros((1, *arrays[0].shape[1:]), arrays[0].dtype)])
