"""The strategy of a statistics study: what comes out of a round is the sum itself, and how many hospitals are in it.

With more rounds than one the sums of each are kept in a place of its own, those of the plan's last round first. The
place of a round that is void or still to come is zeros.
Not in ``STRATEGIES``, since it trains nothing: a plan whose task is ``statistics`` has it, and no other plan.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.parameters import Contribution, Sums, Total, Update
from wardround.strategies.base import State, Strategy


@dataclass(frozen=True, slots=True)
class Adding(Strategy):
    """``rounds``: whose sums are kept; the plan's."""

    rounds: int = 1

    name: ClassVar[str] = "statistics"
    paper: ClassVar[str] = "none: a sum"

    def part_sizes(self, size: int) -> dict[str, int]:
        """The numbers of all queries; the first number of a round's is that of the sites, which nobody sends."""
        return {"update": size // int(self.rounds) - 1}

    def contribute(self, update: Update) -> Contribution:
        raise TypeError("a statistics study trains nothing: its sites add what 'added' is made of")

    def added(self, vector: Sums) -> Contribution:
        """What one hospital adds: its noised vector, shape (size / rounds - 1,)."""
        return {"update": vector}

    def step(self, state: State, total: Total) -> State:
        """The sums in single precision: rounding at 2^-24 of a sum is far below the noise of any budget."""
        sums = np.concatenate([[float(total.sites)], total.parts["update"]]).astype(np.float32)
        first = 0 if self.rounds == 1 else (int(self.rounds) - state.planned.round_number) * len(sums)
        kept = state.model.copy()
        kept[first : first + len(sums)] = sums
        return State(kept, {}, state.terms)
