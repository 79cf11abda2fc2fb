"""The strategy of a statistics study: what comes out of a round is the sum itself, and how many hospitals are in it.

Not in ``STRATEGIES``, since it trains nothing: a plan whose task is ``statistics`` has it, and no other plan.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.parameters import Contribution, Sums, Total, Update
from wardround.strategies.base import State, Strategy


@dataclass(frozen=True, slots=True)
class Adding(Strategy):
    name: ClassVar[str] = "statistics"
    paper: ClassVar[str] = "none: a sum"

    def part_sizes(self, size: int) -> dict[str, int]:
        """The numbers of all queries; the first number of the layout is that of the sites, which nobody sends."""
        return {"update": size - 1}

    def contribute(self, update: Update) -> Contribution:
        raise TypeError("a statistics study trains nothing: its sites add what 'added' is made of")

    def added(self, vector: Sums) -> Contribution:
        """What one hospital adds: its noised vector, shape (size - 1,)."""
        return {"update": vector}

    def step(self, state: State, total: Total) -> State:
        """The sums in single precision: rounding at 2^-24 of a sum is far below the noise of any budget."""
        model = np.concatenate([[float(total.sites)], total.parts["update"]]).astype(np.float32)
        return State(model, {}, state.terms)
