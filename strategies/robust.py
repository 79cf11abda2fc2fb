"""Robust rules: they look at single updates, which ``Total`` cannot carry, so they are no ``Strategy``.

For simulation only: ``simulations.single_updates`` is the one caller, and plans that combine them with secure
aggregation are refused. Every update counts once, whatever its weight, as in the papers.

* Median. Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning, ICML 2018, Algorithm 1, option I.
* Trimmed mean. The same, option II: beta is ``trim``, the share that is left out at each end of every coordinate.
* Krum. Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries, NeurIPS 2017, section 4: the update
  whose n - f - 2 nearest others are nearest; f is ``attackers``.

When not to use them: hospitals that differ strongly (a rare one looks like an attacker and is left out), or wherever
nobody may see a single update.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Sums, Update


@dataclass(frozen=True, slots=True)
class Robust(ABC):
    name: ClassVar[str]
    paper: ClassVar[str]

    @abstractmethod
    def combine(self, updates: Sequence[Update]) -> Sums:
        """The change of the model from single updates, float64, shape (d,). Raises UsageError for too few of them."""


def _table(updates: Sequence[Update]) -> Sums:
    return np.stack([update.difference for update in updates]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Median(Robust):
    name: ClassVar[str] = "median"
    paper: ClassVar[str] = "Yin et al. 2018, ICML"

    def combine(self, updates: Sequence[Update]) -> Sums:
        return np.asarray(np.median(_table(updates), axis=0))


@dataclass(frozen=True, slots=True)
class TrimmedMean(Robust):
    name: ClassVar[str] = "trimmed_mean"
    paper: ClassVar[str] = "Yin et al. 2018, ICML"

    trim: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise UsageError("trimmed_mean: needs 0 <= trim < 0.5", "0 is the mean; try 0.2")

    def combine(self, updates: Sequence[Update]) -> Sums:
        ordered = np.sort(_table(updates), axis=0)
        cut = int(self.trim * len(ordered))
        return np.asarray(ordered[cut : len(ordered) - cut].mean(axis=0))


@dataclass(frozen=True, slots=True)
class Krum(Robust):
    name: ClassVar[str] = "krum"
    paper: ClassVar[str] = "Blanchard et al. 2017, NeurIPS"

    attackers: float = 1

    def __post_init__(self) -> None:
        if self.attackers < 0 or self.attackers != int(self.attackers):
            raise UsageError("krum: attackers is a whole number from 0 on", "the paper needs 2 f + 2 < n sites")

    def combine(self, updates: Sequence[Update]) -> Sums:
        table, f = _table(updates), int(self.attackers)
        if 2 * f + 2 >= len(table):
            raise UsageError(
                f"krum against {f} attackers needs more than {2 * f + 2} updates, and {len(table)} are here",
                "assume fewer attackers, or bring more sites",
            )
        distances = ((table[:, None] - table[None]) ** 2).sum(axis=2)
        nearest = np.sort(distances, axis=1)[:, 1 : len(table) - f - 1]
        return np.asarray(table[int(nearest.sum(axis=1).argmin())])
