"""FedProx. Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, MLSys 2020,
Algorithm 2. Hospital k minimises F_k(w) + (mu / 2) |w - w_t|^2; the server averages as in FedAvg.

The pull mu (w - w_t) is added after clipping and noise: it depends on no patient, so it costs no privacy.
When not to use it: one local step a round (the pull is zero at w_t, so it is FedAvg), or when the hospitals agree.
"""

from dataclasses import dataclass
from typing import ClassVar

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Total
from wardround.strategies.base import State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class FedProx(Strategy):
    name: ClassVar[str] = "fedprox"
    paper: ClassVar[str] = "Li et al. 2020, MLSys"

    mu: float = 0.01

    def __post_init__(self) -> None:
        if not self.mu >= 0:
            raise UsageError(f"fedprox: mu must not be negative, it is {self.mu}", "0 makes it FedAvg; try 0.01")

    def local_rule(self, state: State, learning_rate: float) -> LocalRule:
        return LocalRule(learning_rate, proximal_mu=self.mu)

    def step(self, state: State, total: Total) -> State:
        return State(moved(state.model, mean_update(total)), {}, state.terms)
