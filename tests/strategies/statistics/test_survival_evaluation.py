"""A released model of survival on test patients: ranks and losses, their intervals, and what no plan may ask."""

import os
from hashlib import sha256
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import scipy.stats
from pydantic import ValidationError
from safetensors.numpy import save

from wardround.client.answers import answers_from
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import model_hash
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise
from wardround.strategies.statistics import statistic_for
from wardround.strategies.statistics.concordance import concordance
from wardround.strategies.statistics.graf import LEAST_SEEN, brier_scores, loss_places
from wardround.strategies.statistics.table import Table

SOAK = os.environ.get("WARDROUND_SOAK") == "1"
REPETITIONS = 1000 if SOAK else 150
BETWEEN = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], REPETITIONS, 0.95)
Z = 1.959964
TIMES = np.array([200.0, 400.0, 600.0])
INTEGRATED = "integrated Brier score until 600 1"


def patients_of(table: Any) -> list[tuple[int, bool, int]]:
    """(interval, whether the event was seen, bin) of every patient of a table of whole numbers."""
    k = len(table) // 2
    return [
        (outcome % k if outcome < 2 * k else k, outcome < k, number)
        for (outcome, number), count in np.ndenumerate(np.asarray(table, int))
        for _ in range(count)
    ]


def test_the_c_index_is_the_share_of_ordered_pairs_that_are_ranked_right() -> None:
    table = np.array([[1.0, 0, 3], [0, 2, 2], [2, 1, 0], [1, 1, 0], [4, 0, 2]])
    right = pairs = 0.0
    for one, other in permutations(patients_of(table), 2):
        if one[1] and other[0] > one[0]:
            pairs += 1
            right += 1.0 if one[2] > other[2] else 0.5 if one[2] == other[2] else 0.0
    value, _ = concordance(table, np.zeros((3, 3)), Z)
    assert value == pytest.approx(right / pairs)


def test_its_interval_is_as_wide_as_that_of_tables_drawn_over_and_over() -> None:
    """Of sampling and of noise whose cells are correlated within an outcome."""
    random = np.random.default_rng(4)
    table = np.array([[10.0, 20, 40], [15, 20, 30], [10, 10, 10], [10, 10, 10], [60, 50, 30]])
    noise = 36 * (np.eye(3) - 1 / 7)
    root = np.linalg.cholesky(noise)

    def again(around: Any) -> float:
        drawn = random.poisson(table) + random.standard_normal(table.shape) @ around.T
        return concordance(drawn, np.zeros((3, 3)), Z)[0]

    for covariance, around in ((np.zeros((3, 3)), np.zeros((3, 3))), (noise, root)):
        ends = concordance(table, covariance, Z)[1]
        assert ends is not None
        assert ends[1] - ends[0] == pytest.approx(2 * Z * np.std([again(around) for _ in range(1500)]), rel=0.12)


def test_a_table_that_is_noise_alone_has_no_c_index() -> None:
    table = np.random.default_rng(5).normal(0, 6, (5, 3))
    assert concordance(table, 36 * np.eye(3), Z)[1] is None


def test_every_loss_of_a_patient_has_a_place_of_its_own_and_they_fill_what_there_is() -> None:
    for k in (1, 3, 6):
        places = loss_places(k, np.arange(2 * k + 1))
        assert all(len(set(row)) == k for row in places.tolist())
        assert set(places.ravel().tolist()) == set(range(k * (k + 3) // 2))


def test_without_censoring_the_score_is_the_mean_squared_error() -> None:
    """Three die in each of two intervals, four live on; predictions 0.9 and 0.5 for all."""
    counts, losses = np.array([3.0, 3, 0, 0, 4]), np.array([3 * 0.81, 7 * 0.01, 3 * 0.25, 3 * 0.25, 4 * 0.25])
    first, second = (3 * 0.81 + 7 * 0.01) / 10, 0.25
    expected = [first, second, (1.0 * first / 2 + 2.0 * (first + second) / 2) / 3]
    assert brier_scores((1.0, 3.0), counts, losses, 0.0) == pytest.approx(expected)


def test_nobody_stands_for_more_than_a_hundred_however_many_seem_to_be_censored() -> None:
    counts = np.array([1.0, 500.0, 1.0])
    assert brier_scores((1.0,), counts, np.array([0.0, 1.0]), 0.0)[0] == pytest.approx(1 / LEAST_SEEN / 502)


def drawn(random: np.random.Generator, count: int) -> Table:
    """A model that ranks well and is too careful; who is censored leaves at the grid's times, or after the last."""
    log_risk = random.normal(0, 1, count)
    death = random.exponential(600 * np.exp(-0.8 * log_risk))
    gone = random.choice([200.0, 400.0, 700.0], count, p=[0.1, 0.2, 0.7])
    return Table(
        {"days": np.minimum(death, gone)},
        {"died": (death <= gone).astype(np.int64)},
        np.arange(count),
        scores={"q": log_risk},
    )


def covered(kit: Any, patients: int, noise: float, read_as: float, **changes: Any) -> dict[str, list[int]]:
    """By figure: times it was shown, and times its interval held the figure of a million without noise."""
    query, random = kit.query("survival_evaluation", **changes), np.random.default_rng(20261129)
    statistic = statistic_for(query, {}, 0.95)

    def sums(count: int) -> Any:
        return statistic.site_sum(drawn(random, count)).reshape(1, -1)

    truth = {cell.quantity: cell.value for cell in statistic.answer(sums(1_000_000), 0.0)}
    found = {name: [0, 0] for name in truth}
    for _ in range(REPETITIONS):
        noised = sums(patients) + random.normal(0, noise, (1, query.width))
        for cell in statistic.answer(noised, read_as):
            if cell.low is not None and cell.high is not None:
                found[cell.quantity][0] += 1
                found[cell.quantity][1] += cell.low <= truth[cell.quantity] <= cell.high
    return found


@pytest.mark.parametrize(("patients", "noise"), [(800, 0.0), (800, 6.0)])
def test_intervals_cover_what_a_million_patients_show(kit: Any, patients: int, noise: float) -> None:
    found = covered(kit, patients, noise, noise)
    assert set(found) == {"c-index", *(f"Brier score at {time:g} 1" for time in TIMES), INTEGRATED}
    for name, (shown, times) in found.items():
        assert shown == REPETITIONS
        assert BETWEEN[0] <= times, f"{name}: {times} of {shown}"
        # Noised counts below zero add to what sampling is taken for: the c-index is somewhat too careful.
        assert times <= BETWEEN[1] or (name == "c-index" and noise), f"{name}: {times} of {shown}"


def test_intervals_for_a_third_of_the_noise_are_noticed(kit: Any) -> None:
    found = covered(kit, 800, 9.0, 3.0)
    assert found["c-index"][1] < BETWEEN[0] and found[INTEGRATED][1] < BETWEEN[0]


def test_a_model_without_a_baseline_has_a_c_index_only_and_less_noise(kit: Any) -> None:
    query = kit.query("survival_evaluation", baseline=())
    statistic = statistic_for(query, {}, 0.95)
    assert statistic.bound == 1.0 and query.width == 7 * 8
    sums = statistic.site_sum(drawn(np.random.default_rng(1), 500)).reshape(1, -1)
    assert [cell.quantity for cell in statistic.answer(sums, 0.0)] == ["c-index"]


def test_what_a_patient_adds_is_its_cell_its_outcome_and_its_losses(kit: Any) -> None:
    """By hand: one who dies on day 300, aged 70; and one who is censored on day 300 and so has a loss at day 200."""
    plan = kit.plan_for(kit.query("survival_evaluation"))
    answers, (query,) = answers_from(plan, kit.installed), plan.task.queries
    risk, scale = np.exp(kit.slope * 2), np.sqrt(2 / 3)
    lives = np.array(query.baseline) ** risk
    bound, cell, first = np.sqrt(1.75), int(8 * risk / (1 + risk)), 7 * 8 + 7
    for died, outcome, losses in (
        (1, 1, {1: (1 - lives[0]) ** 2, 3: lives[1] ** 2, 6: lives[2] ** 2}),
        (0, 4, {1: (1 - lives[0]) ** 2}),
    ):
        found = answers.vector(kit.examples([0], [70.0], [1], [30.0], [300.0], [died]), lambda size: b"") * bound
        expected = np.zeros(query.width)
        expected[outcome * 8 + cell], expected[7 * 8 + outcome] = 1, 0.5
        for place, loss in losses.items():
            expected[first + place] = scale * (loss - 0.5)
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_baseline_is_survival_of_the_piecewise_hazard() -> None:
    task = SurvivalPiecewise(cuts=(100.0, 300.0), baseline_rate=0.002)
    hazards = [0.002 * np.exp(b) for b in (0.1, -0.4, 0.3)]
    for time in (50.0, 100.0, 250.0, 900.0):
        whole = sum(hazards[int(np.searchsorted((100, 300), day + 0.5))] for day in np.arange(0, time))
        assert task.baseline([0.1, -0.4, 0.3], [time])[0] == pytest.approx(np.exp(-whole), rel=1e-8)


def test_a_site_computes_the_baseline_again_and_refuses_another(kit: Any) -> None:
    query = kit.query("survival_evaluation")
    wrong = kit.query("survival_evaluation", baseline=[each * 0.99 for each in query.baseline])
    answers_from(kit.plan_for(query), kit.installed)
    with pytest.raises(UsageError, match="is not that of its model"):
        answers_from(kit.plan_for(wrong), kit.installed)


def test_a_cox_model_ranks_with_its_own_output(kit: Any) -> None:
    """The same weights without hazards: the same relative risk, so the same cells."""
    cox = SurvivalCox()
    weights = {"dense0.weight": np.array([[kit.slope, 0, 0, 0]], np.float32)}
    file = save(weights)
    model = kit.query("survival_evaluation").model.model_dump() | {
        "task": cox.model_dump(),
        "layout": cox.layout(4).digest,
        "hash": model_hash(cox.layout(4).join(weights)),
    }
    model["file"] |= {"sha256": sha256(file).hexdigest()}
    rows = kit.examples([0, 1, 2], [30.0, 50, 90], [1, 1, 1], [30.0] * 3, [100.0, 300, 900], [1, 0, 1])
    ranked = [
        answers_from(kit.plan_for(kit.query("survival_evaluation", **changes)), install).vector(rows, lambda size: b"")
        for changes, install in (
            ({"baseline": ()}, kit.installed),
            ({"baseline": (), "model": model}, lambda asked: file),
        )
    ]
    assert ranked[0].tolist() == ranked[1].tolist() and ranked[0].sum() == pytest.approx(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows_per_patient": 2}, "counts as one"),
        ({"outcome": "sex"}, "no column of 0 and 1"),
        ({"time": "died"}, "no column of numbers"),
        ({"times": [400, 200, 600]}, "cuts must rise"),
        ({"baseline": [0.9, 0.8]}, "one probability for each"),
        ({"baseline": [0.9, 0.8, 0.85]}, "never rises"),
    ],
)
def test_a_query_that_makes_no_sense_is_no_plan(kit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kit.plan_for(kit.query("survival_evaluation", **changes))


def test_a_model_is_asked_for_what_it_predicts(kit: Any) -> None:
    with pytest.raises(ValidationError, match="a model of survival"):
        kit.query("survival_evaluation", model=kit.model.model_dump())
    with pytest.raises(ValidationError, match="a model of a yes or no"):
        kit.query("evaluation", model=kit.query("survival_evaluation").model.model_dump())
