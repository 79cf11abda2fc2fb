"""What every strategy promises, as tests over a fixture ``source``: a plugin imports them all."""

from dataclasses import replace

import numpy as np
import pytest

from wardround.protocol.parameters import Total, Update
from wardround.simulations.plugins.local import local_strategy
from wardround.simulations.plugins.source import Source
from wardround.strategies import State, Strategy, spec_of, step_in_blocks
from wardround.strategies.base import Terms

MODEL = np.array([0.5, -1.0, 2.0], np.float32)
UPDATES = (
    Update(np.array([0.25, 0.5, -1.0], np.float32), 100.0),
    Update(np.array([0.75, -0.5, 0.0], np.float32), 300.0),
)
TERMS = Terms(learning_rate=0.1, steps=4, weight=800.0)


@pytest.fixture(scope="module")
def strategy(source: Source) -> Strategy:
    found = local_strategy(source.plugin, {})
    if not isinstance(found, Strategy):
        pytest.skip("a robust rule looks at single updates: it is no function of a sum")
    return found


def _begun(strategy: Strategy) -> State:
    return replace(strategy.init(MODEL), terms=TERMS)


def _total(strategy: Strategy, updates: tuple[Update, ...]) -> Total:
    contributions = [strategy.contribute(update) for update in updates]
    sums = {name: np.sum([c[name] for c in contributions], axis=0) for name in contributions[0]}
    return Total(sums, len(updates))


def test_a_contribution_has_the_parts_that_it_says(strategy: Strategy) -> None:
    parts = strategy.contribute(UPDATES[0])
    assert {name: part.size for name, part in parts.items()} == strategy.part_sizes(MODEL.size)


def test_zero_updates_leave_the_model_alone(strategy: Strategy) -> None:
    state, nothing = _begun(strategy), tuple(Update(np.zeros(3, np.float32), weight) for weight in (50.0, 100.0))
    for _ in range(3):
        state = strategy.step(state, _total(strategy, nothing))
    assert np.array_equal(state.model, MODEL)


def test_permuting_the_sites_changes_nothing(strategy: Strategy) -> None:
    there, back = (strategy.step(_begun(strategy), _total(strategy, updates)) for updates in (UPDATES, UPDATES[::-1]))
    assert np.array_equal(there.model, back.model)


def test_the_state_survives_a_round_trip_through_bytes(strategy: Strategy) -> None:
    state = strategy.step(_begun(strategy), _total(strategy, UPDATES))
    again = replace(State.from_bytes(state.to_bytes()), terms=TERMS)
    on, on_again = (strategy.step(one, _total(strategy, UPDATES)) for one in (state, again))
    assert np.array_equal(on.model, on_again.model)


def test_a_step_in_blocks_is_the_step_over_the_whole(strategy: Strategy) -> None:
    whole = cut = _begun(strategy)
    for _ in range(3):
        total = _total(strategy, UPDATES)
        blocks = [slice(0, 2), slice(2, 3)]
        totals = (
            (at, Total({part: sums[at] if len(sums) == 3 else sums for part, sums in total.parts.items()}, 2))
            for at in blocks
        )
        whole, cut = strategy.step(whole, total), step_in_blocks(strategy, cut, totals)
        assert np.array_equal(cut.model, whole.model)


def test_its_parameters_are_plain_numbers(strategy: Strategy) -> None:
    assert type(strategy)(**spec_of(strategy).parameters) == strategy
