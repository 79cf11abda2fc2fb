"""A group of few hospitals: what each adds to be counted, that it is bounded, and that such a group is seldom shown."""

import os
from collections import Counter
from dataclasses import replace
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
import scipy.stats
from pydantic import ValidationError

from wardround.client.answers import answers_from
from wardround.protocol.parameters import Total
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import FEW_SITES, STATISTICS, expected, read, table_of, vector_of

SOAK = os.environ.get("WARDROUND_SOAK") == "1"
REPETITIONS = 2000 if SOAK else 300


def asked(kit: Any, least: int = 2, patients: int = 5, kind: str = "count", **changes: Any) -> Any:
    by = [kit.sex.model_dump()]
    return kit.query(kind, at_least_sites=least, patients_at_site=patients, **{"by": by} | changes)


def cells_of(plan: Any, sites: list[Any], random_bytes: Any) -> dict[tuple[str, ...], Any]:
    """The figures of the sum over ``sites``, each a hospital's rows."""
    answers, strategy = answers_from(plan), strategy_for(plan)
    assert isinstance(strategy, Adding)
    added = np.sum([answers.vector(rows, random_bytes) for rows in sites], axis=0)
    state = strategy.step(
        strategy.init(plan.starting_model()).under(plan).at(1), Total(strategy.added(added), len(sites))
    )
    return {cell.group: cell for cell in read(plan, state.model)}


def hospital(kit: Any, **counts: int) -> Any:
    """A hospital with so many patients of each sex."""
    sex = np.repeat([0, 1, 2], [counts.get(code, 0) for code in "fmo"])
    n = len(sex)
    return kit.examples(np.arange(n), np.full(n, 50), sex, np.full(n, 30), np.full(n, 100), np.zeros(n))


def test_without_noise_a_group_is_shown_that_as_many_hospitals_have(kit: Any) -> None:
    plan = kit.plan_for(asked(kit, least=2))
    sites = [hospital(kit, f=9, m=30), hospital(kit, f=6, m=0, o=4), hospital(kit, m=3, o=4)]
    found = cells_of(plan, sites, lambda size: b"")
    # f: two in full. m: one in full, and three patients of five. o: four of five, twice; so more than one hospital.
    assert found["f",].value == pytest.approx(15)
    assert found["m",].value == pytest.approx(33) and found["o",].value == pytest.approx(8)
    three = cells_of(kit.plan_for(asked(kit, least=3)), sites, lambda size: b"")
    assert {group: cell.note for group, cell in three.items()} == dict.fromkeys(three, FEW_SITES)
    lonely = cells_of(plan, [hospital(kit, f=500), hospital(kit, m=2), hospital(kit, m=1, o=1)], lambda size: b"")
    assert {cell.note for cell in lonely.values()} == {FEW_SITES}, "no group is of two, so nor is their total"
    assert all(cell.value is None and cell.patients is None for cell in lonely.values())


def test_a_query_that_does_not_ask_is_as_it_was(kit: Any) -> None:
    plain, asking = kit.query("count"), kit.query("count", at_least_sites=3)
    assert "at_least_sites" not in plain.model_dump() and "patients_at_site" not in plain.model_dump()
    assert (plain.sent, asking.sent) == (1, 2)
    task = kit.task(plain)
    assert task.numbers == 9 and kit.task(asking).numbers == 18


@pytest.mark.parametrize("kind", sorted(STATISTICS))
def test_nobody_moves_figures_and_hospitals_together_by_more_than_one(kit: Any, kind: str) -> None:
    """From no patient to one and from one to two, of up to three rows in several groups, below and above the border."""
    one = kind in ("evaluation", "prediction_error", "survival_evaluation", "segmentation_evaluation")
    longest, moved = 0.0, Counter[str]()
    for most, full in product([1] if one else [1, 2], [1, 2]):
        task = kit.task(asked(kit, kind=kind, patients=full, rows_per_patient=most))
        for sexes in ((0,), (0, 1), (0, 0), (2, 1, 0), (1, 1, 2)):
            rows = [(100.0, sex, 80.0, 600.0, 1) for sex in sexes]
            empty, alone, both = (vector_of(task, people(kit, [rows] * count)) for count in (0, 1, 2))
            for name, change in (("first", alone - empty), ("second", both - alone)):
                length = float(np.linalg.norm(change))
                assert length <= 1 + 1e-9
                longest, moved[name] = max(longest, length), moved[name] + 1
    assert longest >= 0.8 and moved["second"] > 4


def people(kit: Any, patients: list[list[tuple[float, ...]]]) -> Any:
    numbers = [number for number, rows in enumerate(patients) for _ in rows]
    cells = np.array([row for rows in patients for row in rows]).reshape(-1, 5)
    table = table_of(kit.contract, kit.examples(numbers, *cells.T))
    overlaps = np.full((table.rows, 2, 3), 9.0)
    return replace(table, scores={"q": np.full(table.rows, 9.0)}, overlaps={"q": overlaps})


def test_a_patient_of_many_rows_counts_once_among_the_patients_of_a_hospital(kit: Any) -> None:
    """Four rows of one in one group are one patient, in two groups half a one in each."""
    for most in (1, 4):
        task = kit.task(asked(kit, patients=1, rows_per_patient=most))
        full = 0.5 / sqrt(1.25)
        for sexes, expected_parts in (((0, 0, 0, 0), [1, 0, 0]), ((0, 0, 2, 2), [0.5, 0, 0.5])):
            vector = vector_of(task, people(kit, [[(50.0, sex, 30.0, 9.0, 0) for sex in sexes]]))
            assert vector.reshape(3, 2)[:, 1] / full == pytest.approx(expected_parts)


def shown(kit: Any, sites: list[Any], least: int, noise: float) -> int:
    plan = kit.plan_for(asked(kit, least, 20), mode="local", noise=noise)
    random = np.random.default_rng(20261129)
    return sum(cells_of(plan, sites, random.bytes)["f",].value is not None for _ in range(REPETITIONS))


def test_under_noise_a_group_of_too_few_hospitals_is_shown_once_in_forty_and_one_of_enough_almost_always(
    kit: Any,
) -> None:
    few = [hospital(kit, f=40), hospital(kit, f=40), hospital(kit, m=40), hospital(kit, m=40)]
    enough = [hospital(kit, f=40)] * 4
    assert shown(kit, few, 3, 1.0) <= scipy.stats.binom.ppf(1 - 1e-6, REPETITIONS, 0.025)
    assert shown(kit, few, 2, 1.0) > 0.9 * REPETITIONS
    assert shown(kit, enough, 3, 1.0) > 0.9 * REPETITIONS


def test_the_total_of_many_groups_is_not_shown_because_one_of_them_was_lucky(kit: Any) -> None:
    """Twelve groups that nobody is in, but for one hospital each: the best of twelve noises decides nothing."""
    bands = {"column": "age", "cuts": [30, 40, 60]}
    plan = kit.plan_for(asked(kit, 2, 20, by=[kit.sex.model_dump(), bands]), mode="local", noise=1.0)
    random, sites = np.random.default_rng(20261129), [hospital(kit, f=40, m=40, o=40), hospital(kit), hospital(kit)]
    times = sum(cells_of(plan, sites, random.bytes)["all", "all"].value is not None for _ in range(REPETITIONS))
    assert times <= scipy.stats.binom.ppf(1 - 1e-6, REPETITIONS, 0.025)


def test_the_proposal_says_beforehand_which_groups_cannot_be_known(kit: Any) -> None:
    declared = dict.fromkeys("abcdef", 300)
    for noise, patients, note in ((1.0, 20, ""), (10.0, 20, FEW_SITES), (10.0, 90, "")):
        plan = kit.plan_for(asked(kit, 3, patients), mode="local", noise=noise, declared=declared)
        assert {cell.note for cell in expected(plan)} == {note}


def test_each_query_pays_for_its_own_hospitals(kit: Any) -> None:
    declared = dict.fromkeys("abc", 300)
    widths = []
    for least in (0, 2):
        plan = kit.plan_for(asked(kit, least, 50), mode="local", noise=2.0, declared=declared)
        cell = expected(plan)[0]
        widths.append(cell.high - cell.low)
    assert widths[1] / widths[0] == pytest.approx(sqrt(1.25))


def test_logistic_regression_keeps_its_rounds(kit: Any) -> None:
    """The number of hospitals stands beside the sums of every round, and no coefficient is taken from it."""
    random, n = np.random.default_rng(1), 300
    rows = kit.examples(
        np.arange(n), random.uniform(20, 100, n), np.zeros(n), random.uniform(15, 45, n), np.ones(n),
        random.integers(0, 2, n),
    )  # fmt: skip
    values = []
    for least in (0, 2):
        plan = kit.plan_for(kit.query("logistic_regression", at_least_sites=least))
        answers, strategy = answers_from(plan), strategy_for(plan)
        assert isinstance(strategy, Adding)
        state = strategy.init(plan.starting_model()).under(plan)
        for number in range(1, plan.rounds + 1):
            added = 3 * answers.vector(rows, lambda size: b"", state.model)
            state = strategy.step(state.at(number), Total(strategy.added(added), 3))
        values.append([cell.value for cell in read(plan, state.model)])
    assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-6)


def test_nobody_asks_for_hospitals_that_are_no_number(kit: Any) -> None:
    for changes in ({"at_least_sites": -1}, {"patients_at_site": 0}):
        with pytest.raises(ValidationError):
            kit.query("count", **changes)
