"""The audit: its arithmetic against published figures, its power over broken mechanisms, its silence on honest ones."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from wardround.client.tasks.classification import Classification
from wardround.client.training import StepCounter, train_plain, train_private
from wardround.privacy.accounting import epsilon
from wardround.privacy.gradients import Examples
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.plan import LocalTraining
from wardround.simulations.attacks.bounds import from_one_run, from_rates, p_value
from wardround.simulations.attacks.canaries import one_run_audit
from wardround.simulations.attacks.inversion import invert_dense, invert_image
from wardround.simulations.attacks.membership import _attack, attack_membership
from wardround.simulations.cohorts import synthetic_cohorts

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())
EVENT = PoissonGaussian(noise_multiplier=2.84, sampling_probability=0.25, steps=5, declared_patients=200)
ROUNDS, DELTA = 15, 1e-4
UPPER = epsilon([EVENT] * ROUNDS, DELTA)
COHORT = synthetic_cohorts(1, (200, 200), 8, seed=3)[0]


@pytest.mark.parametrize("vector", VECTORS["one_run_audit_power"], ids=lambda vector: str(vector["guesses"]))
def test_the_lower_bound_of_one_run_is_the_published_one(vector: dict[str, float]) -> None:
    guesses = int(vector["guesses"])
    for name, share in (("all_correct", 1.0), ("90pct", 0.9), ("75pct", 0.75), ("60pct", 0.6)):
        bound = from_one_run(int(guesses * share), guesses, guesses, 0.0)
        assert bound == pytest.approx(vector[f"eps_lb_{name}"], abs=0.006), name


def test_the_p_value_is_the_theorem_written_out() -> None:
    """Theorem 5.2 of Steinke et al., as a sum over every i, for one small case."""
    value, correct, guesses, canaries, delta = 0.8, 14, 20, 60, 1e-3
    p = math.exp(value) / (math.exp(value) + 1)
    tail = sum(binom.pmf(k, guesses, p) for k in range(correct, guesses + 1))
    widest = max(
        sum(binom.pmf(k, guesses, p) for k in range(max(0, correct - i), correct)) / i for i in range(1, canaries + 1)
    )
    assert p_value(value, correct, guesses, canaries, delta) == pytest.approx(tail + 2 * canaries * delta * widest)
    assert from_one_run(10, 20, 20, 0.0) == 0.0
    with pytest.raises(ValueError, match="no result"):
        from_one_run(21, 20, 60, 0.0)


def test_rates_give_a_bound_that_holds_for_randomised_response() -> None:
    """A mechanism of epsilon 1 exactly: P[yes | in] = e / (1 + e). The bound is above 1 in at most 5 % of runs.

    2,000 runs of 500 + 500: more than 8 % of them above would happen less than once in 10^6 times.
    """
    chance = math.e / (1 + math.e)
    draws = np.random.default_rng(1)
    bounds = [
        from_rates(int(draws.binomial(500, chance)), 500, int(draws.binomial(500, 1 - chance)), 500, 0.0)
        for _ in range(2000)
    ]
    assert np.mean(np.array(bounds) > 1.0) < 0.08
    assert np.median(bounds) > 0.6
    assert from_rates(0, 100, 50, 100, 0.0) == 0.0 and from_rates(100, 100, 100, 100, 0.0) == 0.0


def audited(event: PoissonGaussian, **more: Any) -> float:
    return one_run_audit(COHORT, event, rounds=ROUNDS, clip_norm=1.0, delta=DELTA, **more).epsilon


def test_an_honest_mechanism_is_not_contradicted() -> None:
    """The bound of 1.3 on average is far below 2.99: a contradiction would happen less than once in 10^6 runs."""
    found = [audited(EVENT) for _ in range(5)]
    assert max(found) < UPPER
    assert sum(found) > 0


def unclipped(*arguments: Any) -> Any:
    engine, start, patients, rule, event, _, random_bytes, counter = arguments
    noise_as_accounted = event.model_copy(update={"noise_multiplier": event.noise_multiplier / 1000})
    return train_private(engine, start, patients, rule, noise_as_accounted, 1000.0, random_bytes, counter)


def quiet(*arguments: Any) -> Any:
    engine, start, patients, rule, event, *rest = arguments
    return train_private(engine, start, patients, rule, event.model_copy(update={"noise_multiplier": 0.2}), *rest)


@pytest.mark.parametrize("broken", [unclipped, quiet])
def test_a_broken_mechanism_is_contradicted(broken: Any) -> None:
    """Clipping off, or a fourteenth of the noise: every guess is right, and 200 right guesses refute epsilon 2.99."""
    assert audited(EVENT, train=broken) > UPPER


def test_rates_and_area_of_membership_are_counted_as_defined() -> None:
    """10 % of 20 others is two alarms, 1 % is none: counted by hand."""
    scores = np.concatenate([np.arange(20.0), [25.0, 18.5, 17.5, 3.5]])
    members = np.arange(24) >= 20
    found = _attack("by hand", scores, members, DELTA)
    assert (found.found_at_1, found.found_at_10) == (0.25, 0.75)
    assert found.auc == pytest.approx((20 + 19 + 18 + 4) / 80)


def test_membership_is_found_in_a_model_that_learnt_by_heart_and_not_in_a_protected_one(seeded: None) -> None:
    """25 runs each: the area was 0.902 with a standard deviation of 0.022, and 0.554 with 0.036. Both are more than
    five of these away from 0.75: less than one seed in 10^6 fails, if the areas are Gaussian."""

    def start(task: Classification) -> Any:
        return np.random.default_rng(0).normal(scale=0.3, size=task.engine.size).astype(np.float32)

    def by_heart(task: Classification, patients: Examples) -> Any:
        local = LocalTraining(epochs=300, batch_size=32, learning_rate=0.5)
        return train_plain(task.engine, start(task), patients, LocalRule(0.5), local, bytes(32))

    def protected(task: Classification, patients: Examples) -> Any:
        event = EVENT.model_copy(update={"steps": 75})
        counter = StepCounter()
        return train_private(task.engine, start(task), patients, LocalRule(0.5), event, 1.0, os.urandom, counter)

    for name, train, least, most in (("by heart", by_heart, 0.75, 1.0), ("protected", protected, 0.0, 0.75)):
        threshold, lira = attack_membership(COHORT, train, DELTA, shadows=8)
        assert least <= lira.auc <= most, (name, lira)
        assert threshold.name == "loss threshold" and lira.name == "LiRA"
        if name == "protected":
            assert max(threshold.epsilon, lira.epsilon) <= UPPER


def test_a_dense_layer_gives_a_record_away_and_a_protected_step_does_not() -> None:
    assert invert_dense(COHORT.train, None, 1.0).similarity == pytest.approx(1.0, abs=1e-6)
    # 20 protected steps: in 8 dimensions half of them above 0.9 would happen less than once in 10^6 times.
    found = [invert_dense(COHORT.train, EVENT, 1.0, seed).similarity for seed in range(20)]
    assert np.median(np.abs(found)) < 0.9


def test_an_image_is_reconstructed_from_a_bare_gradient_and_not_from_a_protected_one(seeded: None) -> None:
    """Protected: 0.0 with a standard deviation of 0.13 in 30 runs, so the mean of 8 is 0.05 around 0. Another image of
    the same kind resembles the truth more than that, and 0.75 is over five standard deviations away."""
    steps = 60
    assert min(invert_image(None, 1.0, seed, steps=steps).similarity for seed in range(2)) > 0.99
    protected = [invert_image(EVENT, 1.0, seed, steps=steps) for seed in range(8)]
    assert max(one.similarity for one in protected) < 0.75
    assert np.mean([one.similarity for one in protected]) < np.mean([abs(one.stranger) for one in protected])
