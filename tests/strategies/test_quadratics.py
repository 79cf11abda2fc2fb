"""Each strategy on quadratics of unlike curvature and minimum, whose answers are known in closed form.

Hospital k minimises a_k / 2 (w - b_k)^2 in each coordinate. K steps at rate eta from w go the share
s_k = 1 - (1 - eta a_k)^K of the way to b_k, so FedAvg stands still at sum p s b / sum p s. The minimum of the sum is
sum p a b / sum p a, which is another point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from wardround.client.personal import corrections, own_layers, with_own_layers, without_own_layers
from wardround.client.training import train_plain
from wardround.privacy.gradients import Examples
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Layout, Tensor, Total, Update
from wardround.protocol.plan import LocalTraining
from wardround.strategies import ROBUST, STRATEGIES, Strategy
from wardround.strategies.base import Terms
from wardround.strategies.personal import MODEL

CURVATURES = np.array([[1.0, 0.5], [4.0, 2.0], [0.25, 3.0]])
MINIMA = np.array([[1.0, -2.0], [-3.0, 0.5], [8.0, 4.0]])
WEIGHTS = np.array([100.0, 300.0, 200.0])
RATE, STEPS = 0.1, 5
START = np.array([0.5, 0.5], np.float32)
LAYOUT = Layout((Tensor("body.weight", (1,), 1), Tensor("head.weight", (1,), 1)))
ONE = Examples(np.zeros((1, 1)), np.zeros((1, 1)), np.array([0]), 1)

TRUTH = (WEIGHTS[:, None] * CURVATURES * MINIMA).sum(0) / (WEIGHTS[:, None] * CURVATURES).sum(0)


@dataclass
class Quadratic:
    a: Any
    b: Any
    size: int = 2

    def gradient_sum(self, parameters: Any, examples: Any, clip_norm: float | None) -> Any:
        return self.a * (parameters - self.b)


def still(steps: Sequence[int], normalised: bool = False) -> Any:
    """Where averaging of models stands still."""
    share = np.array([1 - (1 - RATE * a) ** k for a, k in zip(CURVATURES, steps, strict=True)])
    share = WEIGHTS[:, None] * (share / np.array(steps)[:, None] if normalised else share)
    return (share * MINIMA).sum(0) / share.sum(0)


def federated(
    strategy: Strategy, rounds: int = 400, steps: Sequence[int] = (STEPS,) * 3, missing: Any = lambda t: ()
) -> tuple[Any, list[Any]]:
    """The model and the sites' memories after ``rounds``; ``missing`` names the sites that round t is without."""
    terms = Terms(RATE, steps[0], float(WEIGHTS.sum()))
    state, personal = replace(strategy.init(START), terms=terms), strategy.personal(LAYOUT)
    memories: list[Any] = [None] * 3
    for number in range(rounds):
        shared, contributions = strategy.local_rule(state, RATE), []
        for k in set(range(3)) - set(missing(number)):
            engine, known = Quadratic(CURVATURES[k], MINIMA[k]), corrections(strategy, 2, memories[k])
            rule = replace(strategy.own_rule(shared, known), head=personal.layers, head_steps=personal.head_steps)
            begin = with_own_layers(personal, state.model, memories[k])
            local = LocalTraining(steps=steps[k], learning_rate=RATE)
            model = train_plain(engine, begin, ONE, rule, local, b"s")
            update = Update(without_own_layers(personal.layers, model - begin), WEIGHTS[k], steps[k])
            after = {**strategy.next_memory(known, shared, update), **own_layers(personal.layers, model)}
            if personal.pull is not None:
                own = state.model if memories[k] is None else memories[k][MODEL].astype(np.float32)
                pulled = LocalRule(RATE, proximal_mu=personal.pull)
                after[MODEL] = train_plain(engine, state.model, ONE, pulled, local, b"s", begin=own)
            memories[k] = after
            contributions.append(strategy.contribute(update))
        total = Total({name: sum(c[name] for c in contributions) for name in contributions[0]}, len(contributions))
        state = strategy.step(state, total)
    return state.model, memories


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fednova", "ditto", "tuned", "fedbn"])
def test_averaging_stands_still_where_the_formula_says_and_that_is_not_the_minimum(name: str) -> None:
    model, _ = federated(STRATEGIES[name]())
    np.testing.assert_allclose(model, still([STEPS] * 3), atol=1e-4)
    assert np.abs(model - TRUTH).max() > 0.1


@pytest.mark.parametrize(("name", "parameters"), [("scaffold", {}), ("feddyn", {"alpha": 2.0})])
def test_corrected_training_reaches_the_minimum_of_the_sum(name: str, parameters: dict[str, float]) -> None:
    model, memories = federated(STRATEGIES[name](**parameters), rounds=1500)
    np.testing.assert_allclose(model, TRUTH, atol=1e-3)
    gradients = CURVATURES * (TRUTH - MINIMA)
    np.testing.assert_allclose([next(iter(m.values())) for m in memories], gradients, atol=2e-2)


@pytest.mark.parametrize(("name", "parameters"), [("scaffold", {}), ("feddyn", {"alpha": 2.0})])
def test_it_does_so_with_hospitals_that_miss_rounds(name: str, parameters: dict[str, float]) -> None:
    model, _ = federated(STRATEGIES[name](**parameters), rounds=3000, missing=lambda t: [t % 3] if t % 2 else [])
    np.testing.assert_allclose(model, TRUTH, atol=5e-3)


def test_fednova_takes_the_number_of_steps_out_of_the_weights() -> None:
    steps = (2, 5, 10)
    model, _ = federated(STRATEGIES["fednova"](), steps=steps)
    average, _ = federated(STRATEGIES["fedavg"](), steps=steps)
    np.testing.assert_allclose(model, still(steps, normalised=True), atol=1e-4)
    np.testing.assert_allclose(average, still(steps), atol=1e-4)
    assert np.linalg.norm(model - TRUTH) < np.linalg.norm(average - TRUTH)


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_a_head_of_ones_own_ends_at_the_hospitals_own_minimum_and_is_not_sent(name: str) -> None:
    model, memories = federated(STRATEGIES[name]())
    np.testing.assert_allclose([float(m["layers"][0]) for m in memories], MINIMA[:, 1], atol=1e-3)
    steps = [STEPS - (1 if name == "fedrep" else 0)] * 3
    assert model[0] == pytest.approx(still(steps)[0], abs=1e-4)
    assert model[1] == START[1], "at the head the shared model stays where it began"


def test_dittos_own_model_lies_between_the_hospitals_minimum_and_the_shared_model() -> None:
    pull = 0.7
    model, memories = federated(STRATEGIES["ditto"](pull=pull))
    expected = (CURVATURES * MINIMA + pull * model) / (CURVATURES + pull)
    np.testing.assert_allclose([m["model"] for m in memories], expected, atol=1e-3)


def test_scaffold_in_the_form_of_a_sum_is_algorithm_1_with_option_ii_to_the_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal weights, a site missing now and then; both uploads of the paper against our one."""
    monkeypatch.setitem(globals(), "WEIGHTS", np.ones(3))
    eta_g, missing = 0.8, lambda t: [t % 4] if t % 4 < 3 else []
    x, c, c_i = START.astype(np.float64), np.zeros(2), [np.zeros(2) for _ in range(3)]
    for number in range(40):
        present = sorted(set(range(3)) - set(missing(number)))
        y_all, c_changes = [], []
        for i in present:
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (CURVATURES[i] * (y - MINIMA[i]) - c_i[i] + c)
            c_plus = c_i[i] - c + (x - y) / (STEPS * RATE)
            y_all.append(y - x)
            c_changes.append(c_plus - c_i[i])
            c_i[i] = c_plus
        x = x + eta_g * np.mean(y_all, axis=0)
        c = c + np.sum(c_changes, axis=0) / 3
    model, memories = federated(STRATEGIES["scaffold"](server_rate=eta_g), rounds=40, missing=missing)
    np.testing.assert_allclose(model, x, atol=1e-5)
    np.testing.assert_allclose([m["c"] for m in memories], c_i, atol=1e-4)


def test_robust_rules_are_not_moved_by_one_hospital_and_the_mean_is() -> None:
    differences = ([1.0, 1.0], [1.2, 0.9], [0.9, 1.1], [1.1, 1.0], [900, -900])
    updates = [Update(np.array(difference, np.float32), 1.0) for difference in differences]
    middle = [(1.0 + 1.1 + 1.2) / 3, (1.0 + 0.9 + 1.0) / 3]
    np.testing.assert_allclose(ROBUST["median"]().combine(updates), [1.1, 1.0], atol=1e-6)
    np.testing.assert_allclose(ROBUST["trimmed_mean"]().combine(updates), middle, atol=1e-6)
    assert ROBUST["krum"]().combine(updates).tolist() in [u.difference.astype(float).tolist() for u in updates[:4]]
