"""The training patients of many hospitals behind one another, and batches of them as padded tables of rows.

Batches of a step differ in size from site to site. Sites are therefore put into groups of nearly equal batches, so that
little of a padded table is padding, and small enough that a group's arrays stay in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors import Cohort
from wardround.privacy.gradients import Array

Rows = npt.NDArray[np.int64]

VALUES_AT_ONCE: Final = 1 << 17
"""Numbers of one layer of one group: a megabyte."""

MOST_PADDING: Final = 0.2
"""Of a padded table."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of each site of a group: ``sites`` (S,), ``features`` (S, B, inputs), ``targets`` (S, B, T),
    ``counts`` (S,) of real rows.
    """

    sites: Rows
    features: Array
    targets: Array
    counts: Rows


class Stack:
    """Every site's training records in one table, the last row of which is all zeros and stands for "none".

    ``patients`` (S,): of each site; ``first`` (S,): its first row.
    """

    def __init__(self, cohorts: Sequence[Cohort], width: int) -> None:
        """``width``: numbers of the widest layer of a record, for the size of groups."""
        self.patients = np.array([cohort.train.patients for cohort in cohorts], np.int64)
        self.first = np.cumsum(self.patients) - self.patients
        shape = cohorts[0].train.features.shape[1:]
        targets = cohorts[0].train.targets.shape[1:]
        self._features = np.concatenate([*(cohort.train.features for cohort in cohorts), np.zeros((1, *shape))])
        self._targets = np.concatenate([*(cohort.train.targets for cohort in cohorts), np.zeros((1, *targets))])
        self._width = max(width, int(np.prod(shape)))

    @property
    def none(self) -> int:
        """The row that stands for no patient."""
        return len(self._features) - 1

    def batches(self, sites: Rows, rows: Rows, counts: Rows) -> Iterator[Batch]:
        """The batches of a step in groups.

        Args:
            sites: (S,), those that take the step.
            rows: of their batches, the first site's, then the second's, and so on.
            counts: (S,), rows of each.
        """
        starts = np.cumsum(counts) - counts
        order = np.argsort(counts, kind="stable")
        begin = 0
        while begin < len(order):
            group = order[begin : begin + self._sites_at_once(counts[order], begin)]
            begin += len(group)
            sizes = counts[group]
            places = np.arange(int(sizes.max(initial=0)))
            inside = places < sizes[:, None]
            table = np.full(inside.shape, self.none)
            table[inside] = rows[(starts[group][:, None] + places)[inside]]
            yield Batch(sites[group], self._features[table], self._targets[table], sizes)

    def _sites_at_once(self, rising: Rows, begin: int) -> int:
        """How many sites from ``begin`` on make a group: until it is full, or a fifth of it would be padding."""
        sizes = rising[begin:]
        most = max(1, VALUES_AT_ONCE // max(1, int(self._width * max(1, sizes[0]))))
        sizes = sizes[:most]
        table = sizes * np.arange(1, len(sizes) + 1)
        over = np.flatnonzero(table - np.cumsum(sizes) > MOST_PADDING * table)
        return int(over[0]) if len(over) else len(sizes)
