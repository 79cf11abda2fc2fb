"""No patient moves what a site adds by more than the plan says: by brute force on neighbouring data sets.

Adding and removing one patient are the same pair of data sets, so it is enough to remove each.
"""

from dataclasses import replace
from itertools import combinations_with_replacement, product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.protocol.statistics import Statistics
from wardround.strategies.statistics import STATISTICS, Opened, asked_after, statistic_for, table_of, vector_of
from wardround.strategies.statistics.base import Entries

KINDS = sorted(STATISTICS)
EXACT = 1 + 1e-9

# Values at the ends of every range, beyond them, and inside.
ROWS = list(product((0.0, 20.0, 61.0, 100.0, 120.0), (0, 1, 2), (10.0, 30.0, 80.0), (0.0, 600.0, 1000.0), (0, 1)))
SOME_ROWS = ROWS[::23]  # 23 has no factor in common with the grid, so every value of every column is there


def table(kit: Any, patients: list[list[tuple[float, ...]]]) -> Any:
    numbers = [number for number, rows in enumerate(patients) for _ in rows]
    cells = [row for rows in patients for row in rows]
    made = table_of(kit.contract, kit.examples(numbers, *zip(*cells, strict=True)))
    # What an evaluated model predicts, whatever its query is called: far beyond 0 .. 1 at both ends, once no number.
    age = made.numbers["age"]
    scores = np.select([age == 0, age == 120, age == 61], [-9.0, 9.0, np.nan], age / 110 - 0.02)
    # What it marks: of one structure from nothing to thrice the largest volume, of another the less the more of that.
    each = np.floor(np.stack([age, 120 - age], axis=1) / 2)
    both = np.minimum(np.floor(made.numbers["bmi"][:, None]), each)
    overlaps = np.stack([both, each, each], axis=2)
    names = ("q", *(f"q{number}" for number in range(len(KINDS))))
    return replace(made, scores=dict.fromkeys(names, scores), overlaps=dict.fromkeys(names, overlaps))


def held(kind: str, most: int) -> int:
    """``most`` rows of a patient, where the kind lets a plan choose."""
    return 1 if kind in ("evaluation", "prediction_error", "survival_evaluation", "segmentation_evaluation") else most


def moved_by(kit: Any, task: Statistics, patients: list[list[tuple[float, ...]]], gone: int) -> float:
    """The 2-norm of what changes when one patient is removed."""
    rest = patients[:gone] + patients[gone + 1 :]
    there, without = vector_of(task, table(kit, patients)), np.zeros(task.numbers)
    if rest:
        without = vector_of(task, table(kit, rest))
    return float(np.linalg.norm(there - without))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_as_long_as_the_bound_at_most_and_nearly_so_somewhere(kit: Any, kind: str) -> None:
    statistic = statistic_for(kit.query(kind), {}, 0.95)
    entries = statistic.entries(table(kit, [[row] for row in ROWS]))
    norms = np.sqrt(np.square(entries.value).sum(axis=1))
    assert norms.max() <= statistic.bound * EXACT, "the guard would clip what the docstring says is bounded"
    assert norms.max() >= 0.8 * statistic.bound, "the bound is loose, so the noise is too large"
    assert all(len(set(places)) == len(places) for places in entries.place.tolist()), "a row's places are distinct"


@pytest.mark.parametrize(
    ("most", "kind"), [(most, kind) for most in (1, 2) for kind in KINDS if most == held(kind, most)]
)
def test_one_patient_of_several_rows_moves_the_vector_by_one_at_most(kit: Any, kind: str, most: int) -> None:
    """Every patient of one to three rows of a small grid, alone in the data and beside another."""
    task = kit.task(kit.query(kind, rows_per_patient=most, by=[kit.sex.model_dump()]))
    longest = 0.0
    for rows in (1, 2, 3):
        for chosen in combinations_with_replacement(SOME_ROWS, rows):
            longest = max(longest, float(np.linalg.norm(vector_of(task, table(kit, [list(chosen)])))))
    assert longest <= EXACT
    assert longest >= 0.8, "nobody comes near the bound: either it is loose or this grid is no test"


ROW = st.tuples(
    st.floats(0, 120), st.integers(0, 2), st.floats(10, 80), st.floats(0, 1000), st.integers(0, 1)
)  # fmt: skip
PATIENTS = st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(patients=PATIENTS, gone=st.integers(0, 5), most=st.integers(1, 4), data=st.data())
def test_removing_anybody_from_any_data_moves_the_vector_by_one_at_most(
    kit: Any, kind: str, patients: Any, gone: int, most: int, data: Any
) -> None:
    by = data.draw(st.sampled_from([[], [kit.sex.model_dump()], [{"column": "bmi", "cuts": [20, 30]}]]))
    where = data.draw(st.sampled_from([[], [{"column": "sex", "codes": ["f", "o"]}], [{"column": "age", "below": 50}]]))
    task = kit.task(kit.query(kind, rows_per_patient=held(kind, most), by=by, where=where))
    assert moved_by(kit, task, patients, gone % len(patients)) <= EXACT


def test_all_queries_of_a_plan_together_share_one_bound(kit: Any) -> None:
    once = [kind for kind in KINDS if not kit.query(kind).in_rounds]
    queries = tuple(kit.query(kind, name=f"q{number}", share=1 + number) for number, kind in enumerate(once))
    task = kit.task(*queries)
    assert sum(task.weight(query) ** 2 for query in queries) == pytest.approx(1)
    longest = max(moved_by(kit, task, [[row], [ROWS[0]]], 0) for row in ROWS)
    assert 0.8 <= longest <= EXACT
    assert task.weight(queries[3]) / task.weight(queries[0]) == pytest.approx(sqrt(4))


def test_a_patient_with_more_rows_than_the_plan_counts_weighs_as_many_as_it_counts(kit: Any) -> None:
    task = kit.task(kit.query("count", by=[], rows_per_patient=2))
    row = ROWS[0]
    for rows, weight in ((1, 1.0), (2, 2.0), (5, 2.0)):
        counted = 2 * vector_of(task, table(kit, [[row] * rows]))
        assert counted == pytest.approx([weight])


def test_rows_are_counted_after_the_filter_and_not_before(kit: Any) -> None:
    """A patient of whose four rows the filter lets one through counts as that one, whole; one of none does not."""
    task = kit.task(kit.query("count", by=[], where=[{"column": "age", "at_least": 100}]))
    rows = [(30.0, 0, 30.0, 1.0, 0)] * 3 + [(110.0, 0, 30.0, 1.0, 0)]
    assert vector_of(task, table(kit, [rows, rows[:2]])) == pytest.approx([1.0])


def test_whatever_a_statistic_says_of_a_row_is_held_to_its_bound(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of the base class: a statistic with a mistake in it is clipped, and what is not finite adds nothing."""

    def wrong(self: Any, rows: Any) -> Entries:
        value = np.where(np.arange(rows.rows)[:, None] == 1, np.nan, 100.0)
        return Entries(np.zeros((rows.rows, 1), np.int64), value)

    monkeypatch.setattr(STATISTICS["count"], "entries", wrong)
    task = kit.task(kit.query("count", by=[]))
    assert vector_of(task, table(kit, [[ROWS[0]], [ROWS[1]], [ROWS[2]]])) == pytest.approx([2.0])


def earlier(task: Statistics, seed: int, rounds: int, size: float) -> list[Opened]:
    """Sums of earlier rounds that are as wild as noise, or a coordinator that lies, may make them."""
    random, (query,) = np.random.default_rng(seed), task.queries
    return [
        Opened(3.0, {query.name: size * random.standard_normal((query.groups, query.width))}) for _ in range(rounds)
    ]


@pytest.mark.parametrize("size", [0.1, 100.0, 1e30])
@pytest.mark.parametrize("rounds", [1, 4])
def test_whatever_came_out_of_earlier_rounds_a_row_is_within_the_bound_of_the_next(
    kit: Any, size: float, rounds: int
) -> None:
    """As long as it somewhere, so that the guard never clips and noise is least."""
    people, longest, norms = table(kit, [[row] for row in ROWS]), 0.0, []
    for seed in range(20):
        task = kit.task(kit.query("logistic_regression", by=[kit.sex.model_dump()], flags=[]))
        before = earlier(task, seed, rounds, size)
        statistic = asked_after(task, task.queries[0], before, 2.0)
        entries = statistic.entries(people)
        norms.append(float(np.sqrt(np.square(entries.value).sum(axis=1)).max()) / statistic.bound)
        for row in ROWS[::11]:
            longest = max(longest, float(np.linalg.norm(vector_of(task, table(kit, [[row]]), before, 2.0))))
    assert 0.99 <= max(norms) <= EXACT
    assert longest <= EXACT


def test_a_round_that_holds_no_numbers_moves_no_coefficient(kit: Any) -> None:
    task = kit.task(kit.query("logistic_regression"))
    (query,) = task.queries
    before = [Opened(3.0, {query.name: np.full((1, query.width), value)}) for value in (np.nan, np.inf)]
    assert not asked_after(task, query, before, 1.0).coefficients.any()
    people = table(kit, [[row] for row in ROWS])
    assert vector_of(task, people, before, 1.0) == pytest.approx(vector_of(task, people))


def test_every_round_asks_at_the_coefficients_of_the_round_before(kit: Any) -> None:
    """By hand: the second round's gradient is that at one Newton step from zero."""
    task = kit.task(kit.query("logistic_regression"))
    people, (query,) = table(kit, [[row] for row in ROWS[::7]]), task.queries
    first = Opened(1.0, {query.name: vector_of(task, people).reshape(1, -1)})
    age = (np.clip(people.numbers["age"], 20, 100) - 60) / 40
    bmi = (np.clip(people.numbers["bmi"], 15, 45) - 30) / 15
    x, y = np.stack([np.ones(people.rows), age, bmi], axis=1), people.codes["died"]
    step = np.linalg.solve(x.T @ x / 4, x.T @ (y - 0.5))
    second = asked_after(task, query, [first], 0.0)
    assert second.coefficients[0] == pytest.approx(step, rel=1e-9)
    p = 1 / (1 + np.exp(-x @ step))
    assert second.site_sum(people)[1:4] == pytest.approx(x.T @ (y - p), rel=1e-9)
