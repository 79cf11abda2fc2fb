"""What the sites of one computation remember: ``client.store.memory`` without a store, by the same rule.

What a round teaches waits until the round is over, and counts only if the model has moved.
"""

from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load

from wardround.client.personal import corrections, own_layers, with_own_layers
from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Update, Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tensors import tensor_parts
from wardround.strategies import Strategy
from wardround.strategies.base import Memory
from wardround.strategies.personal import MODEL, Personal


class Memories:
    """The memories of all sites, by name."""

    def __init__(self, plan: StudyPlan, strategy: Strategy, data: bytes | None = None) -> None:
        self._strategy = strategy
        self._size = plan.layout.size
        self._personal = strategy.personal(plan.layout)
        self._any = bool(strategy.memory_sizes(plan.layout))
        self._kept: dict[str, Memory] = {}
        self._next: dict[str, Memory] = {}
        for key, array in (load(data) if data else {}).items():
            name, _, part = key.partition("/")
            self._kept[name] = {**self._kept.get(name, {}), part: array}

    def of(self, site: str) -> Memory | None:
        return self._kept.get(site)

    def to_bytes(self) -> bytes:
        if not self._kept:
            return b""
        return b"".join(tensor_parts({f"{name}/{part}": a for name, m in self._kept.items() for part, a in m.items()}))

    def begin(self, request: RoundRequest, names: Sequence[str]) -> tuple[Vector | None, Vector | None, Personal]:
        """Where each site begins (S, d), its linear term (S, d), each None where all are alike; what stays with it."""
        begins = linear = None
        if self._personal.layers:
            begins = np.stack([with_own_layers(self._personal, request.model, self.of(name)) for name in names])
        if self._strategy.corrections(self._size):
            rules = [self._strategy.own_rule(request.rule, self._corrections(name)) for name in names]
            linear = np.stack([rule.linear_term for rule in rules if rule.linear_term is not None])
        return begins, linear, self._personal

    def learn(self, request: RoundRequest, names: Sequence[str], updates: Sequence[Update], models: Vector) -> None:
        """What each site would remember after this round."""
        if not self._any:
            return
        for name, update, model in zip(names, updates, models, strict=True):
            corrected = self._strategy.next_memory(self._corrections(name), request.rule, update)
            self._next[name] = {**corrected, **own_layers(self._personal.layers, model)}

    def own_models(self, shared: Vector, names: Sequence[str]) -> list[Vector]:
        """Where each site's own model stands."""
        kept = [self.of(name) for name in names]
        return [shared if memory is None else memory[MODEL].astype(np.float32) for memory in kept]

    def learn_models(self, names: Sequence[str], models: Vector) -> None:
        for name, model in zip(names, models, strict=True):
            self._next[name] = {**self._next.get(name, {}), MODEL: model.astype(np.float64)}

    def learned(self, replied: Sequence[str]) -> None:
        """Which sites released anything; a memory that is not finite is not kept."""
        self._next = {
            name: memory
            for name, memory in self._next.items()
            if name in replied and all(np.isfinite(part).all() for part in memory.values())
        }

    def settle(self, moved: bool) -> None:
        """The round is over: what was learned counts if the model has moved."""
        if moved:
            self._kept |= self._next
        self._next = {}

    def _corrections(self, name: str) -> Memory:
        return corrections(self._strategy, self._size, self.of(name))
