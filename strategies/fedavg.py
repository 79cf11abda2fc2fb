"""FedAvg. McMahan, Moore, Ramage, Hampson, Aguera y Arcas: Communication-Efficient Learning of Deep Networks from
Decentralized Data, AISTATS 2017, Algorithm 1. w_{t+1} = sum_k (n_k / n) w_k, here as w_t + sum_k (n_k / n) D_k.

When not to use it: hospitals whose patients differ strongly, with many local steps between rounds; the local models
then drift apart and their mean can be worse than any of them (the published heart disease table shows it).
"""

from dataclasses import dataclass
from typing import ClassVar

from wardround.protocol.parameters import Total
from wardround.strategies.base import State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class FedAvg(Strategy):
    name: ClassVar[str] = "fedavg"
    paper: ClassVar[str] = "McMahan et al. 2017, AISTATS"

    def step(self, state: State, total: Total) -> State:
        return State(moved(state.model, mean_update(total)), {}, state.terms)
