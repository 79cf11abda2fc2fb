"""SCAFFOLD. Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning, ICML 2020, Algorithm 1 with option II. Letters: x is the model w, y_i what site i makes of it, D_i = y_i - x,
eta_l the hospitals' ``learning_rate``, eta_g ``server_rate``, K the steps of a round, S the sites in the sum, N all.

    y_i    <-  y_i - eta_l (g_i(y_i) - c_i + c)                  K times: linear term c - c_i
    c_i+    =  c_i - c + (x - y_i) / (K eta_l)                   (option II)
    x      <-  x + eta_g / |S| sum_{i in S} (y_i - x)
    c      <-  c + 1 / N sum_{i in S} (c_i+ - c_i)

In the paper a hospital sends y_i - x and c_i+ - c_i. The second is known from the first:
c_i+ - c_i = -c - D_i / (K eta_l), and c, K and eta_l are the same for all. So the server steps c from the sum that it
has already, with r = |S| / N:

    c      <-  (1 - r) c - r / (K eta_l) mean_{i in S} D_i

and no second vector is sent. With weights p_i (declared patients) every mean is weighted and r = p(S) / p(all); equal
weights are the paper to the letter. K must be the same everywhere, so the plan names ``local.steps``.

c_i is a site's memory. It is made of c and the D_i that the site releases, under differential privacy the noised one,
so it is post-processing and costs nothing. A site that answers too late counts its own answer and the server does not:
c is then off the mean of the c_i by p_i / p(all) of that one change.

When not to use it: one step a round (it is FedAvg then, one round later); strong noise, which c_i carries into the next
round; hospitals that miss rounds often; privacy mode dist (refused, docs/adr/0024).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Total, Update, Vector
from wardround.strategies.base import Memory, State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class Scaffold(Strategy):
    name: ClassVar[str] = "scaffold"
    paper: ClassVar[str] = "Karimireddy et al. 2020, ICML"
    declared_weights: ClassVar[bool] = True
    equal_steps: ClassVar[bool] = True

    server_rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.server_rate > 0:
            raise UsageError(f"scaffold: server_rate must be above 0, it is {self.server_rate}", "the paper uses 1")

    def init(self, model: Vector) -> State:
        return State(model, {"c": np.zeros(len(model))})

    def local_rule(self, state: State, learning_rate: float) -> LocalRule:
        return LocalRule(learning_rate, linear_term=state.memory["c"].astype(np.float32))

    def corrections(self, size: int) -> dict[str, int]:
        return {"c": size}

    def own_rule(self, rule: LocalRule, memory: Memory) -> LocalRule:
        assert rule.linear_term is not None, "the policy has checked it"
        return replace(rule, linear_term=(rule.linear_term - memory["c"]).astype(np.float32))

    def next_memory(self, memory: Memory, rule: LocalRule, update: Update) -> Memory:
        assert rule.linear_term is not None, "the policy has checked it"
        drift = update.difference.astype(np.float64) / (update.steps * rule.learning_rate)
        return {"c": memory["c"] - rule.linear_term - drift}

    def step(self, state: State, total: Total) -> State:
        mean, terms = mean_update(total), state.planned
        if terms.steps is None:
            raise UsageError("scaffold needs the same number of steps at every site", "give local.steps, not epochs")
        here = total.parts["weight"][0] / terms.weight
        # What the sites subtracted is c as it was sent, in single precision.
        sent = state.memory["c"].astype(np.float32).astype(np.float64)
        c = state.memory["c"] - here * (sent + mean / (terms.steps * terms.learning_rate))
        return State(moved(state.model, self.server_rate * mean), {"c": c}, state.terms)
