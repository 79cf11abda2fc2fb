"""Ditto. Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021,
Algorithm 1. Beside the shared model w (FedAvg) each hospital trains v_k from its own v_k of the round before:

    v_k  <-  v_k - eta (grad F_k(v_k) + lambda (v_k - w))       lambda is ``pull``

v_k never leaves, and nothing that leaves depends on it; its privacy is in ``strategies.personal``. It is trained
without noise. When not to use it: where a report about v_k (a metric of it) is to be released, which would have to be
paid for; pull = 0 is the hospital alone, a large one the shared model.
"""

from dataclasses import dataclass
from typing import ClassVar

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Total
from wardround.strategies.base import State, Strategy, mean_update, moved
from wardround.strategies.personal import Personal


@dataclass(frozen=True, slots=True)
class Ditto(Strategy):
    name: ClassVar[str] = "ditto"
    paper: ClassVar[str] = "Li et al. 2021, ICML"

    pull: float = 0.1

    def __post_init__(self) -> None:
        if not self.pull >= 0:
            raise UsageError(f"ditto: pull must not be negative, it is {self.pull}", "the paper tries 0.05 to 2")

    def personal(self, layout: Layout) -> Personal:
        return Personal(pull=self.pull)

    def step(self, state: State, total: Total) -> State:
        return State(moved(state.model, mean_update(total)), {}, state.terms)
