"""FedNova. Wang, Liu, Liang, Joshi, Poor: Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization, NeurIPS 2020, Algorithm 1 and equation 6, for plain local SGD (a_i = [1, ..., 1]).

tau_k is the number of steps that hospital k took, d_k = -D_k / (eta tau_k) the paper's normalised gradient. The sums
are p_k D_k / tau_k, p_k and p_k tau_k:

    tau_eff = sum p_k tau_k / sum p_k
    w      <-  w + tau_eff sum p_k (D_k / tau_k) / sum p_k

so a hospital does not weigh more because it took more steps. p_k tau_k is one number more beside the vector; under
differential privacy all take the same steps, so it tells nothing. When not to use it: with ``local.steps`` (all tau_k
are equal, and this is FedAvg); it does not mend drift within a round.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.parameters import Contribution, Total, Update
from wardround.strategies.base import State, Strategy, mean_update, moved

STEPS = "weight_steps"


@dataclass(frozen=True, slots=True)
class FedNova(Strategy):
    name: ClassVar[str] = "fednova"
    paper: ClassVar[str] = "Wang et al. 2020, NeurIPS"

    def part_sizes(self, size: int) -> dict[str, int]:
        return {"update": size, "weight": 1, STEPS: 1}

    def contribute(self, update: Update) -> Contribution:
        return {
            "update": update.weight * (update.difference.astype(np.float64) / update.steps),
            "weight": np.array([update.weight]),
            STEPS: np.array([update.weight * update.steps]),
        }

    def step(self, state: State, total: Total) -> State:
        effective = total.parts[STEPS][0] / total.parts["weight"][0]
        return State(moved(state.model, effective * mean_update(total)), {}, state.terms)
