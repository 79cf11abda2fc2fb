"""Newton's method on noised sums, alone: what several rounds say together, and when they say nothing."""

from typing import Any

import numpy as np
import pytest

from wardround.client.answers import answers_from
from wardround.protocol.parameters import Total
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import expected, read
from wardround.strategies.statistics.newton import (
    LONGEST_STEP,
    UNDETERMINED,
    UNSETTLED,
    Estimate,
    Point,
    estimate_of,
    next_of,
)

INFORMATION = np.array([[900.0, 100.0, 0.0], [100.0, 500.0, -80.0], [0.0, -80.0, 700.0]])
BETA = np.array([0.4, -0.7, 0.2])
NONE = np.zeros(3)


def point(at: Any, random: np.random.Generator | None = None, noise: float = 0.0, other: float = 0.0) -> Point:
    """A round on a quadratic likelihood whose maximum is ``BETA``, with noise."""
    gradient, information = INFORMATION @ (BETA - at), INFORMATION
    if random is not None:
        half = np.triu(random.normal(0, other, (3, 3)))
        gradient = gradient + random.normal(0, noise, 3)
        information = information + half + np.triu(half, 1).T
    return Point(np.asarray(at), 1000.0, gradient, information, noise, other)


def test_the_covariance_is_that_of_estimates_over_and_over() -> None:
    """Two rounds of unlike noise, away from the maximum so that the noise of the information counts."""
    random, ats = np.random.default_rng(4), (BETA + np.array([0.6, -0.3, 0.2]), BETA - np.array([0.2, 0.5, 0.0]))
    found, told = [], []
    for _ in range(3000):
        estimate = estimate_of([point(ats[0], random, 20, 25), point(ats[1], random, 30, 25)], NONE, 1)
        assert isinstance(estimate, Estimate)
        found.append(estimate.coefficients)
        told.append(estimate.covariance)
    by_sampling = np.linalg.inv(INFORMATION)
    by_noise = np.mean(told, axis=0) - by_sampling
    assert np.diag(np.cov(np.array(found).T)) == pytest.approx(np.diag(by_noise), rel=0.12)
    assert np.mean(found, axis=0) == pytest.approx(BETA, abs=4 * np.sqrt(np.diag(by_noise) / 3000).max() + 0.005)
    assert np.diag(by_noise).max() > 0.3 * np.diag(by_sampling).max(), "too little noise to see"


def test_a_round_of_less_noise_weighs_more_and_two_rounds_beat_one() -> None:
    random = np.random.default_rng(5)
    good, bad = (point(BETA, random, noise, 1e-6) for noise in (10, 40))
    variance = {}
    for name, points in (("good", [good]), ("bad", [bad]), ("both", [good, bad])):
        estimate = estimate_of(points, NONE, 1)
        assert isinstance(estimate, Estimate)
        variance[name] = (estimate.covariance - np.linalg.inv(INFORMATION))[0, 0]
    assert variance["both"] == pytest.approx(1 / (1 / variance["good"] + 1 / variance["bad"]), rel=1e-3)


def test_a_step_is_newtons_where_the_noise_allows_it_and_never_long() -> None:
    assert next_of(point(NONE), NONE) == pytest.approx(BETA)
    penalty = np.array([0.0, 50.0, 50.0])
    assert next_of(point(NONE), penalty) == pytest.approx(
        np.linalg.solve(INFORMATION + np.diag(penalty), INFORMATION @ BETA)
    )
    wild = Point(NONE, 1000.0, np.array([1e9, -1e9, 1e9]), -INFORMATION, 1e8, 1e6)
    assert np.linalg.norm(next_of(wild, NONE)) <= LONGEST_STEP * (1 + 1e-9)
    broken = Point(BETA, 1000.0, np.full(3, np.nan), INFORMATION, 1.0, 1.0)
    assert next_of(broken, NONE).tolist() == BETA.tolist()


def test_there_is_no_estimate_where_information_drowns_in_noise_and_a_ridge_brings_one() -> None:
    drowned = Point(BETA, 1000.0, NONE, INFORMATION, 200.0, 200.0)
    assert estimate_of([drowned], NONE, 1) == UNDETERMINED
    assert isinstance(estimate_of([drowned], np.full(3, 2000.0), 1), Estimate)
    negative = Point(BETA, 1000.0, NONE, -INFORMATION, 1.0, 1.0)
    assert estimate_of([negative], NONE, 1) == UNDETERMINED


def test_rounds_that_were_far_from_the_estimate_say_nothing() -> None:
    """As where a predictor tells the outcome: each step leads further away."""
    assert estimate_of([point(BETA + np.array([1.0, -1.0, 1.0]))], NONE, 1) == UNSETTLED
    assert isinstance(estimate_of([point(BETA + np.array([0.5, -0.5, 0.5]))], NONE, 1), Estimate)


def test_the_error_that_is_expected_is_that_of_narrow_predictors_and_an_outcome_of_one_in_five(kit: Any) -> None:
    declared = dict.fromkeys(("east", "north", "south"), 3000)
    plan = kit.plan_for(kit.query("logistic_regression"), mode="local", noise=4.0, declared=declared)
    random, n = np.random.default_rng(6), 3000
    answers, strategy = answers_from(plan), strategy_for(plan)
    assert isinstance(strategy, Adding)
    state = strategy.init(plan.starting_model()).under(plan)
    sites = []
    for _ in declared:
        x = random.normal(0, 1 / 4, (2, n))
        has = random.uniform(size=n) < 1 / (1 + np.exp(1.386 - x.sum(axis=0)))
        sites.append(kit.examples(np.arange(n), 60 + 40 * x[0], np.zeros(n), 30 + 15 * x[1], np.ones(n), has))
    for number in range(1, plan.rounds + 1):
        added = np.sum([answers.vector(rows, random.bytes, state.model) for rows in sites], axis=0)
        state = strategy.step(state.at(number), Total(strategy.added(added), 3))
    halves = [
        {cell.quantity: (cell.high - cell.low) / 2 for cell in cells if cell.high is not None and cell.low is not None}
        for cells in (expected(plan), read(plan, state.model))
    ]
    for name in ("intercept", "age", "bmi", "deviance, last round"):
        assert halves[0][name] == pytest.approx(halves[1][name], rel=0.25), name


def test_a_patient_of_several_rows_widens_what_sampling_leaves_open() -> None:
    one, three = (estimate_of([point(BETA)], NONE, rows) for rows in (1, 3))
    assert isinstance(one, Estimate) and isinstance(three, Estimate)
    assert three.covariance == pytest.approx(3 * one.covariance)
