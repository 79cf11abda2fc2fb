"""What a hospital adds to a sum, and what the server does with the sum. One paper, one file, one line here."""

import dataclasses
from typing import Final, TypeVar

from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.plan import StrategySpec, StudyPlan
from wardround.strategies.adding import Adding
from wardround.strategies.base import State, Strategy, step_in_blocks
from wardround.strategies.ditto import Ditto
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.fedavgm import FedAvgM
from wardround.strategies.feddyn import FedDyn
from wardround.strategies.fednova import FedNova
from wardround.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from wardround.strategies.fedprox import FedProx
from wardround.strategies.fit import check_strategy
from wardround.strategies.own_layers import FedBN, FedPer, FedRep
from wardround.strategies.robust import Krum, Median, Robust, TrimmedMean
from wardround.strategies.scaffold import Scaffold
from wardround.strategies.tree_sums import TreeSums
from wardround.strategies.tuned import Tuned

__all__ = [
    "ROBUST",
    "STRATEGIES",
    "Adding",
    "Robust",
    "State",
    "Strategy",
    "TreeSums",
    "check_strategy",
    "simulated_from",
    "step_in_blocks",
    "strategy_for",
    "strategy_from",
]

STRATEGIES: Final[dict[str, type[Strategy]]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "fedavgm": FedAvgM,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fedbn": FedBN,
    "fedper": FedPer,
    "fedrep": FedRep,
    "ditto": Ditto,
    "tuned": Tuned,
}


ROBUST: Final[dict[str, type[Robust]]] = {"median": Median, "trimmed_mean": TrimmedMean, "krum": Krum}
"""Rules that look at single updates: for simulation only."""

_Kind = TypeVar("_Kind", Strategy, Robust)


def strategy_from(spec: StrategySpec) -> Strategy:
    """The strategy that a plan names.

    Raises:
        UsageError: an unknown name or parameter, a value out of range, or a rule for simulation only.
    """
    if spec.plugin is not None:
        raise UsageError(
            f"strategy '{spec.name}' is a plugin, whose code would run at the coordinator too: simulation only",
            "simulate it, or take a strategy of the registry",
        )
    if spec.name in ROBUST:
        raise UsageError(
            f"strategy '{spec.name}' looks at single updates, which no coordinator is shown: simulation only",
            "simulate it, or take a strategy that is a function of the sum",
        )
    for alone in (Adding, TreeSums):
        if spec.name == alone.name:
            return _made(alone, spec)
    if spec.name not in STRATEGIES:
        raise UsageError(f"there is no strategy '{spec.name}'", did_you_mean(spec.name, [*STRATEGIES, *ROBUST]))
    return _made(STRATEGIES[spec.name], spec)


def strategy_for(plan: StudyPlan) -> Strategy:
    """The strategy of ``plan``, which fits it. Raises UsageError as ``strategy_from`` and ``check_strategy`` do."""
    strategy = strategy_from(plan.strategy)
    check_strategy(plan, strategy)
    return strategy


def simulated_from(spec: StrategySpec) -> Strategy | Robust:
    """As ``strategy_from``, robust rules too: where one person plays every party."""
    return _made(ROBUST[spec.name], spec) if spec.name in ROBUST else strategy_from(spec)


def _made(kind: type[_Kind], spec: StrategySpec) -> _Kind:
    known = [field.name for field in dataclasses.fields(kind)]
    for parameter in spec.parameters:
        if parameter not in known:
            hint = did_you_mean(parameter, known) if known else f"{spec.name} has no parameters"
            raise UsageError(f"strategy '{spec.name}' has no parameter '{parameter}'", hint)
    return kind(**spec.parameters)


def spec_of(strategy: Strategy | Robust) -> StrategySpec:
    """The plan's description of a strategy object: its name and every parameter that is set."""
    values = {name: value for name, value in dataclasses.asdict(strategy).items() if value is not None}
    return StrategySpec(name=strategy.name, parameters=values)
