"""FedAvgM. Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification, 2019 (arXiv 1909.06335), section 4.3:
v <- beta v + D, w <- w + v.

D is the mean update (the paper's Delta w with the other sign), beta is ``momentum``; ``learning_rate`` is the server's,
1 in the paper. When not to use it: few rounds (v takes 1 / (1 - beta) rounds to build up, and the step is as many times
longer then), or a learning rate that was tuned for FedAvg; noise of all those rounds is in v too.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Total, Vector
from wardround.strategies.base import State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class FedAvgM(Strategy):
    name: ClassVar[str] = "fedavgm"
    paper: ClassVar[str] = "Hsu et al. 2019, arXiv 1909.06335"

    momentum: float = 0.9
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.momentum < 1 and self.learning_rate > 0):
            raise UsageError("fedavgm: needs 0 <= momentum < 1 and learning_rate > 0", "the paper uses momentum=0.9")

    def init(self, model: Vector) -> State:
        return State(model, {"v": np.zeros(len(model))})

    def step(self, state: State, total: Total) -> State:
        v = self.momentum * state.memory["v"] + mean_update(total)
        return State(moved(state.model, self.learning_rate * v), {"v": v}, state.terms)
