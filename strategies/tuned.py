"""Fine-tuning at each hospital. Yu, Bagdasaryan, Shmatikov: Salvaging Federated Learning by Local Adaptation, 2020
(arXiv 2002.04758), the first of its three adaptations (fine-tuning). FedAvg; when the study is over, each hospital
takes ``steps`` steps of SGD from the final model on its own patients.

The tuned model stays there and nothing depends on it (``strategies.personal``). When not to use it: few patients, where
it only learns them by heart (compare shared and personalised on the test patients).
"""

from dataclasses import dataclass
from typing import ClassVar

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Total
from wardround.strategies.base import State, Strategy, mean_update, moved
from wardround.strategies.personal import Personal


@dataclass(frozen=True, slots=True)
class Tuned(Strategy):
    name: ClassVar[str] = "tuned"
    paper: ClassVar[str] = "Yu et al. 2020, arXiv 2002.04758"

    steps: float = 20

    def __post_init__(self) -> None:
        if self.steps < 1 or self.steps != int(self.steps):
            raise UsageError("tuned: steps is a whole number from 1 on", "start with as many as one round has")

    def personal(self, layout: Layout) -> Personal:
        return Personal(tuning_steps=int(self.steps))

    def step(self, state: State, total: Total) -> State:
        return State(moved(state.model, mean_update(total)), {}, state.terms)
