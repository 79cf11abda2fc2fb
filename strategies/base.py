"""A strategy is what each hospital adds to a sum, and what the server does with the sum.

Pure functions around that sum, written in the letters of the papers' common form: hospital k holds weight p_k and
update D_k = w_k - w; the server sees only sums over k and steps w <- w + f(sum p_k D_k / sum p_k). Because ``Total``
carries sums and nothing else, a strategy cannot look at one hospital, and works unchanged under secure aggregation.

Some papers let a hospital remember something between rounds (site memory, docs/adr/0024). Two more pure functions say
how: the hospital's own rule from the shared one and its memory, and the next memory from the update that it releases.
The latter sees nothing else, so under differential privacy a memory is post-processing of what was paid for.

Steps use + - * / and sqrt elementwise on float64 only, so that unlike CPUs agree on the next model's hash.
Cyclic training (each hospital passes its model on to the next) is not a strategy here: it is no function of a sum, and
it would hand one hospital's model to another.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np
from safetensors.numpy import load

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Contribution, Layout, Sums, Total, Update, Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tensors import tensor_parts
from wardround.strategies.personal import Personal

Memory: TypeAlias = Mapping[str, Sums]
"""What one site keeps between rounds: named float64 arrays. It never leaves the site."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a step may depend on besides sums: what the plan says, and which round it is.

    ``steps`` None: by epochs; ``weight``: of all sites together; ``round_number`` 0: between rounds.
    """

    learning_rate: float
    steps: int | None
    weight: float
    round_number: int = 0


def terms_of(plan: StudyPlan) -> Terms:
    declared = sum(participant.declared_patients for participant in plan.participants)
    return Terms(plan.local.learning_rate, plan.local.steps, float(declared))


@dataclass(frozen=True, slots=True)
class State:
    """All that a strategy remembers between rounds, as a value: the model and named float64 arrays of its shape.

    ``terms`` are the plan's and are no part of the bytes; None where no step asks for them.
    """

    model: Vector
    memory: Mapping[str, Sums] = field(default_factory=dict)
    terms: Terms | None = None

    def under(self, plan: StudyPlan) -> "State":
        """The state in a study of ``plan``."""
        return replace(self, terms=terms_of(plan))

    def at(self, round_number: int) -> "State":
        """The state as the step of a round begins with it."""
        return replace(self, terms=replace(self.planned, round_number=round_number))

    @property
    def planned(self) -> Terms:
        """The terms of the plan. Raises UsageError where there are none."""
        if self.terms is None:
            raise UsageError("this strategy needs the terms of a plan", "begin with init(model).under(plan)")
        return self.terms

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
    declared_weights: ClassVar[bool] = False
    """Whether sites are weighted by declared patients without differential privacy too: for a step that must know the
    weight of all sites, those that are missing too."""
    equal_steps: ClassVar[bool] = False
    """Whether every site must take the same number of steps a round, as a plan with ``local.steps`` says."""

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

    def personal(self, layout: Layout) -> Personal:
        """What every site keeps of the model for itself, as data: nothing."""
        return Personal()

    def corrections(self, size: int) -> dict[str, int]:
        """Name and length of what ``next_memory`` gives, for a model of ``size`` parameters; it begins at zero."""
        return {}

    def memory_sizes(self, layout: Layout) -> dict[str, int]:
        """Name and length of every array of a site's memory."""
        return self.corrections(layout.size) | self.personal(layout).sizes(layout.size)

    def own_rule(self, rule: LocalRule, memory: Memory) -> LocalRule:
        """One site's rule from the rule of all and the site's corrections."""
        return rule

    def next_memory(self, memory: Memory, rule: LocalRule, update: Update) -> Memory:
        """A site's corrections after a round: from those before, the rule of all, and the update that it releases."""
        return {}


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
        before = State(state.model[at], {name: array[at] for name, array in state.memory.items()}, state.terms)
        after = strategy.step(before, total)
        model[at] = after.model
        for name, array in after.memory.items():
            kept.setdefault(name, np.empty(len(model)))[at] = array
    return State(model, kept, state.terms)


def mean_update(total: Total) -> Sums:
    """sum p_k D_k / sum p_k, float64, shape (d,)."""
    mean: Sums = total.parts["update"] / total.parts["weight"][0]
    return mean


def moved(model: Vector, by: Sums) -> Vector:
    """The model plus a float64 change, rounded once to float32."""
    return (model.astype(np.float64) + by).astype(np.float32)
