"""FedDyn. Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic Regularization,
ICLR 2021, Algorithm 1. Letters: theta is the model w, h_k the hospital's grad L_k(theta_k), alpha ``alpha``.

    hospital:  min  L_k(w) - <h_k, w> + alpha / 2 |w - w_t|^2        linear term -h_k, proximal mu = alpha
               h_k+ = h_k - alpha D_k                                 D_k = w_k - w_t
    server:    h    = h - alpha p(S) / p(all) mean_{k in S} D_k
               w    = w_t + mean_{k in S} D_k - h / alpha

Equal weights p are the paper (1 / m). h_k is a site's memory, made of released updates only: under differential privacy
post-processing. Where nothing moves any more D_k = 0, so g_k(w) = h_k and the mean of the h_k is h = 0: the minimum of
the sum, whatever the number of local steps.

When not to use it: strong noise (h_k adds up the noise of all rounds); few local steps with a small alpha, for -h/alpha
then overshoots (take alpha near 1 / (K eta) or above); privacy mode dist (refused, docs/adr/0024).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Total, Update, Vector
from wardround.strategies.base import Memory, State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class FedDyn(Strategy):
    name: ClassVar[str] = "feddyn"
    paper: ClassVar[str] = "Acar et al. 2021, ICLR"
    declared_weights: ClassVar[bool] = True

    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise UsageError(f"feddyn: alpha must be above 0, it is {self.alpha}", "the paper uses 0.1, 0.01 and 0.001")

    def init(self, model: Vector) -> State:
        return State(model, {"h": np.zeros(len(model))})

    def local_rule(self, state: State, learning_rate: float) -> LocalRule:
        return LocalRule(learning_rate, proximal_mu=self.alpha)

    def corrections(self, size: int) -> dict[str, int]:
        return {"h": size}

    def own_rule(self, rule: LocalRule, memory: Memory) -> LocalRule:
        return replace(rule, linear_term=(-memory["h"]).astype(np.float32))

    def next_memory(self, memory: Memory, rule: LocalRule, update: Update) -> Memory:
        return {"h": memory["h"] - self.alpha * update.difference.astype(np.float64)}

    def step(self, state: State, total: Total) -> State:
        mean = mean_update(total)
        here = total.parts["weight"][0] / state.planned.weight
        h = state.memory["h"] - self.alpha * here * mean
        return State(moved(state.model, mean - h / self.alpha), {"h": h}, state.terms)
