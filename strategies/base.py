"""A strategy is what each hospital adds to a sum, and what the server does with the sum.

Five pure functions around that sum, written in the letters of the papers' common form: hospital k holds weight p_k and
update D_k = w_k - w; the server sees only sums over k and steps w <- w + f(sum p_k D_k / sum p_k). Because ``Total``
carries sums and nothing else, a strategy cannot look at one hospital, and works unchanged under secure aggregation.

Steps use + - * / and sqrt elementwise on float64 only, so that unlike CPUs agree on the next model's hash.
Cyclic training (each hospital passes its model on to the next) is not a strategy here: it is no function of a sum, and
it would hand one hospital's model to another.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from safetensors.numpy import load

from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Contribution, Sums, Total, Update, Vector
from wardround.protocol.tensors import tensor_parts


@dataclass(frozen=True, slots=True)
class State:
    """All that a strategy remembers between rounds, as a value: the model and named float64 arrays of its shape."""

    model: Vector
    memory: Mapping[str, Sums] = field(default_factory=dict)

    def to_parts(self) -> tuple[bytes | memoryview, ...]:
        """The state in the safetensors format, in parts that follow one another."""
        return tensor_parts({"model": self.model} | {f"memory.{name}": array for name, array in self.memory.items()})

    def to_bytes(self) -> bytes:
        """The parts in one; ``from_bytes`` gives back the same state bit for bit."""
        return b"".join(self.to_parts())

    @classmethod
    def from_bytes(cls, data: bytes) -> "State":
        tensors = load(data)
        memory = {name.removeprefix("memory."): array for name, array in tensors.items() if name != "model"}
        return cls(tensors["model"], memory)


@dataclass(frozen=True, slots=True)
class Strategy(ABC):
    """Base of all strategies; fields of a subclass are its parameters, with the paper's defaults."""

    name: ClassVar[str]
    paper: ClassVar[str]

    def init(self, model: Vector) -> State:
        """The state before the first round."""
        return State(model)

    def local_rule(self, state: State, learning_rate: float) -> LocalRule:
        """How the hospitals train in the next round, as data."""
        return LocalRule(learning_rate)

    def part_sizes(self, size: int) -> dict[str, int]:
        """Name and length of every part of a contribution, for a model of ``size`` parameters."""
        return {"update": size, "weight": 1}

    def contribute(self, update: Update) -> Contribution:
        """What one hospital adds to the sum: by default its weight p_k and p_k D_k."""
        return {
            "update": update.weight * update.difference.astype(np.float64),
            "weight": np.array([update.weight]),
        }

    @abstractmethod
    def step(self, state: State, total: Total) -> State:
        """The next state from the sums of a round."""


def step_in_blocks(
    strategy: Strategy, state: State, totals: Iterable[tuple[slice, Total]], memory: Vector | None = None
) -> State:
    """The state that one ``step`` over the whole model would give, bit for bit: steps are elementwise.

    Args:
        totals: for each block of the model, in order, its sums.
        memory: where the next model goes, shape (d,); it may be what ``totals`` reads a block of before yielding it.
    """
    model = np.empty_like(state.model) if memory is None else memory
    kept: dict[str, Sums] = {}
    for at, total in totals:
        before = State(state.model[at], {name: array[at] for name, array in state.memory.items()})
        after = strategy.step(before, total)
        model[at] = after.model
        for name, array in after.memory.items():
            kept.setdefault(name, np.empty(len(model)))[at] = array
    return State(model, kept)


def mean_update(total: Total) -> Sums:
    """sum p_k D_k / sum p_k, float64, shape (d,)."""
    mean: Sums = total.parts["update"] / total.parts["weight"][0]
    return mean


def moved(model: Vector, by: Sums) -> Vector:
    """The model plus a float64 change, rounded once to float32."""
    return (model.astype(np.float64) + by).astype(np.float32)
