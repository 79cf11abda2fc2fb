"""The strategy of a campaign of indicators: what comes out of a tick is written at its place, and nothing is trained.

A contribution has two parts: ``nodes``, the noised sums of the tree's nodes that close at the tick, shape (indicators,
levels) row by row, zeros where no node closes; and ``present``, 1 at the hospital's own place. Not in ``STRATEGIES``: a
plan whose task is ``indicators`` has it, and no other plan.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.dyadic import levels, nodes
from wardround.protocol.indicators import PRESENT
from wardround.protocol.parameters import Contribution, Sums, Total, Update
from wardround.strategies.base import State, Strategy


@dataclass(frozen=True, slots=True)
class TreeSums(Strategy):
    """The numbers are the task's, as a plan of indicators must say; they are whole."""

    name: ClassVar[str] = "indicators"
    paper: ClassVar[str] = "Chan, Shi and Song 2011"

    ticks: float
    indicators: float
    hospitals: float

    def part_sizes(self, size: int) -> dict[str, int]:
        return {"nodes": int(self.indicators) * levels(int(self.ticks)), PRESENT: int(self.hospitals)}

    def contribute(self, update: Update) -> Contribution:
        raise TypeError("a campaign of indicators trains nothing: its sites add what 'added' is made of")

    def added(self, sums: Sums, place: int) -> Contribution:
        """What the hospital at ``place`` of the participants adds: ``sums``, shape (nodes that close, indicators)."""
        padded = np.zeros((int(self.indicators), levels(int(self.ticks))))
        padded[:, : len(sums)] = sums.T
        present = np.zeros(int(self.hospitals))
        present[place] = 1.0
        return {"nodes": padded.ravel(), PRESENT: present}

    def step(self, state: State, total: Total) -> State:
        """The result with the sums of this tick, in single precision."""
        ticks, indicators, hospitals = int(self.ticks), int(self.indicators), int(self.hospitals)
        tick, model = state.planned.round_number, state.model.copy()
        first, closed = nodes(tick - 1), nodes(tick) - nodes(tick - 1)
        model[(tick - 1) * hospitals : tick * hospitals] = np.rint(total.parts[PRESENT])
        series = model[ticks * hospitals :].reshape(indicators, nodes(ticks))
        series[:, first : first + closed] = total.parts["nodes"].reshape(indicators, -1)[:, :closed]
        return State(model, {}, state.terms)
