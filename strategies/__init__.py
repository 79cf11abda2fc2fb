"""What a hospital adds to a sum, and what the server does with the sum. One paper, one file, one line here."""

import dataclasses
from typing import Final

from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.plan import StrategySpec
from wardround.strategies.base import State, Strategy, step_in_blocks
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from wardround.strategies.fedprox import FedProx

__all__ = ["STRATEGIES", "State", "Strategy", "step_in_blocks", "strategy_from"]

STRATEGIES: Final[dict[str, type[Strategy]]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
}


def strategy_from(spec: StrategySpec) -> Strategy:
    """The strategy that a plan names. Raises UsageError for an unknown name, parameter or a value out of range."""
    if spec.name not in STRATEGIES:
        raise UsageError(f"there is no strategy '{spec.name}'", did_you_mean(spec.name, STRATEGIES))
    kind = STRATEGIES[spec.name]
    known = [field.name for field in dataclasses.fields(kind)]
    for parameter in spec.parameters:
        if parameter not in known:
            hint = did_you_mean(parameter, known) if known else f"{spec.name} has no parameters"
            raise UsageError(f"strategy '{spec.name}' has no parameter '{parameter}'", hint)
    return kind(**spec.parameters)


def spec_of(strategy: Strategy) -> StrategySpec:
    """The plan's description of a strategy object: its name and every parameter that is set."""
    values = {name: value for name, value in dataclasses.asdict(strategy).items() if value is not None}
    return StrategySpec(name=strategy.name, parameters=values)
