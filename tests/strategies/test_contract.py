"""What every strategy promises, run over the registry, and each paper's step computed by hand on two sites."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import join_contribution, split_contribution
from wardround.protocol.parameters import Total, Update
from wardround.protocol.plan import StrategySpec
from wardround.strategies import STRATEGIES, State, Strategy, spec_of, step_in_blocks, strategy_from
from wardround.strategies.base import Terms

EVERY = sorted(STRATEGIES)
MODEL = np.array([0.5, -1.0, 2.0], np.float32)
UPDATES = [
    Update(np.array([0.25, 0.5, -1.0], np.float32), 100.0),
    Update(np.array([0.75, -0.5, 0.0], np.float32), 300.0),
]
MEAN = [0.625, -0.25, -0.25]  # (100 * first + 300 * second) / 400, by hand


TERMS = Terms(learning_rate=0.1, steps=4, weight=800.0)


def begun(strategy: Strategy) -> State:
    return replace(strategy.init(MODEL), terms=TERMS)


def add_up(strategy: Strategy, updates: Sequence[Update]) -> Total:
    contributions = [strategy.contribute(update) for update in updates]
    return Total({name: sum(c[name] for c in contributions) for name in contributions[0]}, len(updates))


@pytest.mark.parametrize("name", EVERY)
def test_zero_updates_leave_the_model_alone(name: str) -> None:
    strategy = STRATEGIES[name]()
    state = begun(strategy)
    for _ in range(3):
        state = strategy.step(state, add_up(strategy, [Update(np.zeros(3, np.float32), w) for w in (50.0, 100.0)]))
    assert np.array_equal(state.model, MODEL)


@pytest.mark.parametrize("name", EVERY)
def test_permuting_the_sites_changes_nothing(name: str) -> None:
    strategy = STRATEGIES[name]()
    there = strategy.step(begun(strategy), add_up(strategy, UPDATES))
    back = strategy.step(begun(strategy), add_up(strategy, UPDATES[::-1]))
    assert np.array_equal(there.model, back.model)


@pytest.mark.parametrize("name", EVERY)
def test_the_state_survives_a_round_trip_through_bytes(name: str) -> None:
    strategy = STRATEGIES[name]()
    state = strategy.step(begun(strategy), add_up(strategy, UPDATES))
    again = replace(State.from_bytes(state.to_bytes()), terms=TERMS)
    assert np.array_equal(again.model, state.model) and again.model.dtype == np.float32
    assert sorted(again.memory) == sorted(state.memory)
    on, on_again = (strategy.step(s, add_up(strategy, UPDATES)) for s in (state, again))
    assert np.array_equal(on.model, on_again.model)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step_in_blocks_is_the_step_over_the_whole(name: str, size: int) -> None:
    strategy = STRATEGIES[name]()
    whole = cut = begun(strategy)
    for _ in range(3):
        total, memory = add_up(strategy, UPDATES), np.empty(3, np.float32)
        blocks = [slice(first, min(first + size, 3)) for first in range(0, 3, size)]
        totals = (
            (at, Total({part: sums[at] if len(sums) == 3 else sums for part, sums in total.parts.items()}, 2))
            for at in blocks
        )
        whole, cut = strategy.step(whole, total), step_in_blocks(strategy, cut, totals, memory)
        assert cut.model is memory and np.array_equal(cut.model, whole.model)
        assert cut.memory.keys() == whole.memory.keys()
        assert all(np.array_equal(cut.memory[part], whole.memory[part]) for part in whole.memory)


@pytest.mark.parametrize("name", EVERY)
def test_contributions_have_the_declared_sizes_and_survive_joining(name: str) -> None:
    strategy = STRATEGIES[name]()
    parts = strategy.contribute(UPDATES[0])
    sizes = strategy.part_sizes(3)
    assert {key: len(value) for key, value in parts.items()} == sizes
    again = split_contribution(join_contribution(parts), sizes)
    assert all(np.array_equal(again[key], parts[key]) for key in parts)


@pytest.mark.parametrize("name", EVERY)
def test_a_memory_has_the_declared_arrays_and_is_a_function_of_the_released_update(name: str) -> None:
    strategy, update = STRATEGIES[name](), replace(UPDATES[0], steps=4)
    rule = strategy.local_rule(begun(strategy), 0.1)
    zero = {key: np.zeros(length) for key, length in strategy.corrections(3).items()}
    after = strategy.next_memory(zero, rule, update)
    assert {key: len(array) for key, array in after.items()} == strategy.corrections(3)
    own = strategy.own_rule(rule, after)
    assert (own.learning_rate, own.proximal_mu) == (rule.learning_rate, rule.proximal_mu)
    if after:
        assert own.linear_term is not None and own.linear_term.any(), "what is remembered changes what is done"


@pytest.mark.parametrize("name", EVERY)
def test_a_strategy_and_its_spec_are_inverse(name: str) -> None:
    strategy = STRATEGIES[name]()
    assert strategy_from(spec_of(strategy)) == strategy


@pytest.mark.parametrize("name", EVERY)
def test_a_step_depends_on_the_total_alone_not_on_how_it_was_made_up(name: str) -> None:
    strategy = STRATEGIES[name]()
    one = [Update(np.array(MEAN, np.float32), 400.0)]
    there = strategy.step(begun(strategy), add_up(strategy, UPDATES))
    assert np.allclose(there.model, strategy.step(begun(strategy), add_up(strategy, one)).model, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["fedavg", "fedprox", "fedbn", "fedper", "fedrep", "ditto", "tuned", "fednova", "scaffold"]
)
def test_averaging_equals_the_hand_computation(name: str) -> None:
    strategy = STRATEGIES[name]()
    after = strategy.step(begun(strategy), add_up(strategy, UPDATES))
    assert after.model.tolist() == [1.125, -1.25, 1.75]


@pytest.mark.parametrize("name", ["fedadagrad", "fedyogi", "fedadam"])
def test_fedopt_equals_algorithm_2_written_out_in_scalars(name: str) -> None:
    parameters = {"learning_rate": 0.1, "beta1": 0.9, "tau": 0.001}
    parameters |= {} if name == "fedadagrad" else {"beta2": 0.99}
    strategy = strategy_from(StrategySpec(name=name, parameters=parameters))
    state = begun(strategy)
    for _ in range(2):
        state = strategy.step(state, add_up(strategy, UPDATES))
    for index, delta in enumerate(MEAN):
        x, m, v = float(MODEL[index]), 0.0, 0.001**2
        for _ in range(2):
            m = 0.9 * m + 0.1 * delta
            if name == "fedadagrad":
                v = v + delta**2
            elif name == "fedyogi":
                v = v - 0.01 * delta**2 * math.copysign(1.0, v - delta**2)
            else:
                v = 0.99 * v + 0.01 * delta**2
            x = float(np.float32(x + 0.1 * m / (math.sqrt(v) + 0.001)))
        assert state.model[index] == pytest.approx(x, abs=2e-7)


def test_fedprox_pulls_towards_the_round_model_and_fedavg_does_not() -> None:
    prox, avg = strategy_from(StrategySpec(name="fedprox", parameters={"mu": 0.5})), STRATEGIES["fedavg"]()
    assert prox.local_rule(begun(prox), 0.1).proximal_mu == 0.5
    assert avg.local_rule(begun(avg), 0.1).proximal_mu == 0.0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (StrategySpec(name="fedavgg"), "did you mean 'fedavg'"),
        (StrategySpec(name="fedprox", parameters={"mue": 1.0}), "did you mean 'mu'"),
        (StrategySpec(name="fedavg", parameters={"mu": 1.0}), "no parameters"),
        (StrategySpec(name="fedprox", parameters={"mu": -1.0}), "FedAvg"),
        (StrategySpec(name="fedadam", parameters={"beta1": 1.0}), "beta1=0.9"),
        (StrategySpec(name="fedyogi", parameters={"beta2": 1.0}), "beta2=0.99"),
        (StrategySpec(name="fedadagrad", parameters={"beta2": 0.9}), "beta1"),
        (StrategySpec(name="fedavgm", parameters={"momentum": 1.0}), "momentum=0.9"),
        (StrategySpec(name="scaffold", parameters={"server_rate": 0.0}), "uses 1"),
        (StrategySpec(name="feddyn", parameters={"alpha": 0.0}), "0.01"),
        (StrategySpec(name="fedper", parameters={"head_layers": 0.5}), "last layer"),
        (StrategySpec(name="fedrep", parameters={"head_steps": 0.0}), "strategies.md"),
        (StrategySpec(name="ditto", parameters={"pull": -1.0}), "0.05"),
        (StrategySpec(name="tuned", parameters={"steps": 0.0}), "one round"),
        (StrategySpec(name="median"), "function of the sum"),
    ],
)
def test_a_wrong_strategy_is_answered_with_what_was_meant(spec: StrategySpec, says: str) -> None:
    with pytest.raises(UsageError) as error:
        strategy_from(spec)
    assert says in error.value.hint
