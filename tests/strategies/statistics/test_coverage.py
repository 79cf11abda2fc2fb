"""Intervals cover the truth as often as they say: noise and sampling together, over repeated studies.

Each repetition draws hospitals' patients anew from a population whose figures are known, adds the noise of each site
through ``client.answers`` with bytes of a seeded generator, and reads the sum. ``make soak`` repeats 1,000 times. With
R repetitions of a right statistic the number of covers is binomial(R, 0.95); the bounds below are exceeded with
probability 1e-4 at most, and at 1,000 repetitions lie at 92 and 98 %.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats

from wardround.client.answers import answers_from
from wardround.protocol.parameters import Total
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import STATISTICS, read

SOAK = os.environ.get("WARDROUND_SOAK") == "1"
REPETITIONS = 1000 if SOAK else 100
SITES, PATIENTS, NOISE = 3, 400, 4.0
BETWEEN = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], REPETITIONS, 0.95)


@dataclass(frozen=True)
class People:
    """Patients of one repetition, columns as arrays."""

    age: Any
    sex: Any
    bmi: Any
    days: Any
    died: Any


AGE = scipy.stats.beta(2.5, 2, loc=20, scale=80)
CENSORED = (400.0, 601.0)
RATE = 1 / 700


def people(random: np.random.Generator) -> People:
    """Ages of a skewed law within the query's range; BMI a line of them with bounded errors; exponential deaths."""
    n = SITES * PATIENTS
    age = AGE.rvs(n, random_state=random)
    bmi = 22 + 0.1 * age + random.uniform(-6, 6, n)
    death, gone = random.exponential(1 / RATE, n), random.choice(CENSORED, n)
    return People(age, random.integers(0, 3, n), bmi, np.minimum(death, gone), death <= gone)


DEAD = float(np.mean([1 - np.exp(-RATE * gone) for gone in CENSORED]))


def risk(age: Any) -> Any:
    """What the model of this folder predicts."""
    return 1 / (1 + np.exp(-0.5 * (age - 50) / 10))


SQUARED = float(AGE.expect(lambda a: DEAD * (1 - risk(a)) ** 2 + (1 - DEAD) * risk(a) ** 2))
MEAN_RISK = float(AGE.expect(risk))


@cache
def mean_power(power: int) -> float:
    """Of the error of 26 + 0.2 (age - 50) for a BMI within 6 of 22 + 0.1 age, none above 10."""
    age, around = AGE.ppf((np.arange(2000) + 0.5) / 2000)[:, None], np.linspace(-6, 6, 601)
    errors = (22 + 0.1 * age) - (26 + 0.2 * (age - 50)) + around
    return float((np.minimum(np.abs(errors), 10) ** power).mean())


@cache
def brier(time: float) -> float:
    """At ``time``, of the model of survival of this folder: hazards 0.0008 until day 300 and 0.0012 after it."""
    lives = np.exp(-RATE * time)
    predicted = np.exp(-(0.0008 * min(time, 300) + 0.0012 * max(time - 300, 0)))
    return float(
        AGE.expect(
            lambda a: (
                lives * (1 - predicted ** np.exp(0.05 * (a - 50))) ** 2
                + (1 - lives) * predicted ** (2 * np.exp(0.05 * (a - 50)))
            )
        )
    )


LIVER = np.arange(49)
HAVE = np.diff(AGE.cdf(np.append(20 + LIVER * 80 / 49, 101)))
"""The shares of people with so many voxels of liver; the model takes the 32 of the left half for it."""

DICE, VOLUME = 2 * np.minimum(LIVER, 32) / (LIVER + 32), np.minimum((LIVER + 32) / 2, 30)

B0, B1 = -3.0, 0.05
"""The log odds of an outcome by age, where that is asked."""

SLOPE_R = 0.1 * AGE.std() / np.sqrt((0.1 * AGE.std()) ** 2 + 12.0)
TRUTH: dict[str, dict[str, Callable[[People], float]]] = {
    "count": {"count": lambda who: float(((who.sex == 0) & (who.age < 40)).sum())},
    "sum": {"sum": lambda who: float(who.age.sum())},
    "mean": {"mean": lambda who: float(AGE.mean())},
    "variance": {"variance": lambda who: float(AGE.var()), "standard deviation": lambda who: float(AGE.std())},
    "histogram": {"count": lambda who: float((who.age < 50).sum())},
    "quantiles": {f"quantile {p:g}": lambda who, p=p: float(AGE.ppf(p)) for p in (0.25, 0.5, 0.75)},
    "correlation": {"age and bmi": lambda who: float(SLOPE_R)},
    "linear_regression": {"age": lambda who: 0.1, "intercept": lambda who: 22.0},
    "logistic_regression": {
        "intercept": lambda who: B0,
        "age": lambda who: B1,
        "odds ratio of age": lambda who: np.exp(B1),
    },
    "survival": {f"survival at {t:g} d": lambda who, t=t: float(np.exp(-RATE * t)) for t in (200, 400, 600)},
    "piecewise_exponential": {f"rate until {t} d": lambda who: RATE for t in (200, 400, 600)},
    # Death does not depend on age, by which the model predicts it.
    "evaluation": {
        "AUROC": lambda who: 0.5,
        "AUPRC": lambda who: DEAD,
        "Brier score": lambda who: SQUARED,
        "observed minus predicted": lambda who: DEAD - MEAN_RISK,
    },
    "prediction_error": {
        "mean absolute error": lambda who: mean_power(1),
        "root mean squared error": lambda who: mean_power(2) ** 0.5,
    },
    "survival_evaluation": {
        "c-index": lambda who: 0.5,
        **{f"Brier score at {t:g} d": lambda who, t=t: brier(t) for t in (200, 400, 600)},
        "integrated Brier score until 600 d": lambda who: (brier(200) + brier(400) + brier(600) / 2) / 3,
    },
    "segmentation_evaluation": {
        "mean Dice of liver": lambda who: float(HAVE @ DICE),
        "pooled Dice of liver (clipped at 30)": lambda who: float((HAVE * DICE) @ VOLUME / (HAVE @ VOLUME)),
    },
}


CHANGES: dict[str, Any] = {
    "histogram": {"cuts": [50, 70]},
    "logistic_regression": {"of": [{"column": "age", "lower": 20, "upper": 100}], "outcome": "died"},
}
"""So that the first figure is one of many patients: a noised count below zero is not shown."""


def covers(kit: Any, kind: str, read_as: float = NOISE) -> dict[str, int]:
    """Of so many repetitions, how many intervals of each figure hold the truth."""
    query, declared = kit.query(kind, **CHANGES.get(kind, {})), dict.fromkeys(("east", "north", "south"), PATIENTS)
    plan = kit.plan_for(query, mode="local", noise=NOISE, declared=declared)
    told = kit.plan_for(query, mode="local", noise=read_as, declared=declared)
    answers, strategy = answers_from(plan, kit.installed), strategy_for(plan)
    assert isinstance(strategy, Adding)
    random = np.random.default_rng(20261129)
    covered = dict.fromkeys(TRUTH[kind], 0)
    for _ in range(REPETITIONS):
        who, state = people(random), strategy.init(plan.starting_model()).under(plan)
        if kind == "logistic_regression":
            who = replace(who, died=random.uniform(size=len(who.age)) < scipy.special.expit(B0 + B1 * who.age))
        for number in range(1, plan.rounds + 1):
            added = np.zeros(plan.task.numbers)
            for site in range(SITES):
                part = slice(site * PATIENTS, (site + 1) * PATIENTS)
                columns = (who.age, who.sex, who.bmi, who.days, who.died)
                rows = kit.rows(kind, np.arange(PATIENTS), *(column[part] for column in columns))
                added += answers.vector(rows, random.bytes, state.model)
            state = strategy.step(state.at(number), Total(strategy.added(added), SITES))
        model = state.model
        first: dict[str, Any] = {}
        for cell in read(told, model):
            first.setdefault(cell.quantity, cell)
        for quantity, truth in TRUTH[kind].items():
            cell = first[quantity]
            assert cell.low is not None and cell.high is not None, f"'{quantity}' was not shown: {cell.note}"
            covered[quantity] += cell.low <= truth(who) <= cell.high
    return covered


@pytest.mark.parametrize("kind", sorted(STATISTICS))
def test_intervals_cover_what_they_say_they_cover(kit: Any, kind: str) -> None:
    for quantity, times in covers(kit, kind).items():
        assert BETWEEN[0] <= times <= BETWEEN[1], f"{quantity}: {times} of {REPETITIONS} intervals of 95 % cover"


def test_the_bounds_notice_intervals_that_are_made_for_half_the_noise(kit: Any) -> None:
    assert covers(kit, "count", NOISE / 2)["count"] < BETWEEN[0]
