"""A released model on test patients: its figures, their intervals under much and no noise, and what no plan may ask."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from pydantic import ValidationError
from safetensors.numpy import save
from sklearn.metrics import average_precision_score, roc_auc_score

from wardround.client.answers import answers_from
from wardround.client.evaluation import wilson
from wardround.client.population import usual_domains
from wardround.protocol.errors import UsageError
from wardround.strategies.statistics import statistic_for
from wardround.strategies.statistics.evaluation import Evaluations, Tally, _class
from wardround.strategies.statistics.fieller import fieller
from wardround.strategies.statistics.ranking import PARTS, Class, auroc, average_precision
from wardround.strategies.statistics.table import Table

SOAK = os.environ.get("WARDROUND_SOAK") == "1"
REPETITIONS = 1000 if SOAK else 200
BETWEEN = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], REPETITIONS, 0.95)
Z = 1.959964
FIGURES = ("AUROC", "AUPRC", "Brier score", "log loss (clipped at 4)", "observed minus predicted")


def exact(*counts: float) -> Class:
    return Class(np.array(counts), np.zeros((len(counts), len(counts))))


def test_areas_are_those_of_scikit_learn_with_every_bin_spread_evenly() -> None:
    positive, negative = [1.0, 0, 7, 30, 12], [25.0, 14, 9, 3, 0]
    bins = np.concatenate([np.repeat(np.arange(5), np.array(each, int)) for each in (negative, positive)])
    has = np.concatenate([np.zeros(51), np.ones(50)])
    assert auroc(exact(*positive), exact(*negative), Z)[0] == pytest.approx(roc_auc_score(has, bins))
    parts = np.tile(np.arange(PARTS) / PARTS, len(bins))
    expected = average_precision_score(np.repeat(has, PARTS), np.repeat(bins, PARTS) + parts)
    assert average_precision(exact(*positive), exact(*negative), Z)[0] == pytest.approx(expected)


def test_the_interval_without_noise_is_as_wide_as_that_of_resampled_patients() -> None:
    random = np.random.default_rng(4)
    positive, negative = np.array([1.0, 10, 27, 90, 72]), np.array([75.0, 44, 59, 23, 9])
    value, ends = auroc(exact(*positive), exact(*negative), Z)
    assert ends is not None
    again = [auroc(exact(*random.poisson(positive)), exact(*random.poisson(negative)), Z)[0] for _ in range(2000)]
    assert ends[1] - ends[0] == pytest.approx(2 * Z * np.std(again), rel=0.06)
    assert ends[0] < value < ends[1]
    value, ends = average_precision(exact(*positive), exact(*negative), Z)
    assert ends is not None
    again = [
        average_precision(exact(*random.poisson(positive)), exact(*random.poisson(negative)), Z)[0] for _ in range(2000)
    ]
    assert ends[1] - ends[0] == pytest.approx(2 * Z * np.std(again), rel=0.06)


def test_a_ratio_has_the_ends_at_which_the_test_just_fails() -> None:
    ends = fieller(30.0, 100.0, Z, 16.0, 5.0, 81.0)
    assert ends is not None
    for end in ends:
        assert (30 - 100 * end) ** 2 == pytest.approx(Z**2 * (16 - 2 * end * 5 + end**2 * 81))
    assert ends[0] < 0.3 < ends[1]
    assert fieller(30.0, 10.0, Z, 16.0, 5.0, 81.0) is None, "what is divided by may be zero"


def test_a_class_is_the_least_squares_mix_of_its_bins_and_its_count() -> None:
    bins, count, noise, m = np.array([4.0, 9.0, -2.0]), 20.0, 3.0, 3
    # Every bin is seen with noise s, and their sum with twice that: weighted least squares by another library.
    design, seen = np.vstack([np.eye(m), np.ones(m) / 2]), np.append(bins, count / 2)
    expected = np.linalg.lstsq(design, seen, rcond=None)[0]
    found = _class(bins, count, noise)
    assert found.counts == pytest.approx(expected)
    assert found.noise == pytest.approx(noise**2 * np.linalg.inv(design.T @ design))


def test_the_share_of_a_bin_without_noise_has_wilsons_interval(kit: Any) -> None:
    query = kit.query("evaluation", bins=2)
    tally = Tally(exact(0.0, 8.0), exact(12.0, 2.0), np.zeros(2), np.zeros(2), 0.0, query)
    found = {figure.name: figure for figure in tally.figures(1.9599639845400545)}
    for name, share, patients in (("observed at 0 to 0.5", 0.0, 12), ("observed at 0.5 to 1", 0.8, 10)):
        assert found[name].interval == pytest.approx(wilson(share, patients), abs=1e-9)


def people(random: np.random.Generator, count: int, apart: float) -> tuple[Any, Any]:
    """Outcomes of 40 %, and a score that tells them apart and is too sure of itself."""
    has = (random.random(count) < 0.4).astype(np.int64)
    logit = apart * (random.normal(size=count) + apart * (has - 0.5)) - 0.4
    return has, 1 / (1 + np.exp(-1.2 * logit))


def covered(kit: Any, patients: int, noise: float, read_as: float) -> dict[str, list[int]]:
    """By figure: times it was shown, and times its interval held the figure of a million."""
    query, random = kit.query("evaluation"), np.random.default_rng(20261129)
    statistic = statistic_for(query, {}, 0.95)
    assert isinstance(statistic, Evaluations)

    def sums(count: int) -> Any:
        has, score = people(random, count, 1.7)
        return statistic.site_sum(Table({}, {"died": has}, np.arange(count), scores={"q": score}))

    truth = {figure.name: figure.value for figure in Tally.of(sums(1_000_000), 0.0, query).figures(Z)}
    found = {name: [0, 0] for name in FIGURES}
    for _ in range(REPETITIONS):
        noised = sums(patients) + random.normal(0, noise, query.width)
        for figure in Tally.of(noised, read_as, query).figures(Z):
            if figure.name in found and figure.interval is not None:
                found[figure.name][0] += 1
                found[figure.name][1] += figure.interval[0] <= truth[figure.name] <= figure.interval[1]
    return found


@pytest.mark.parametrize(("patients", "noise"), [(1200, 0.0), (1200, 6.0), (260, 9.0)])
def test_intervals_cover_what_a_million_patients_show(kit: Any, patients: int, noise: float) -> None:
    """The last is a quarter of the patients of heart disease at epsilon 1: there the areas may be too careful."""
    for name, (shown, times) in covered(kit, patients, noise, noise).items():
        assert shown >= 0.95 * REPETITIONS
        careful = name in ("AUROC", "AUPRC") and noise
        assert BETWEEN[0] * shown / REPETITIONS <= times, f"{name}: {times} of {shown}"
        assert careful or times <= BETWEEN[1], f"{name}: {times} of {shown}"


def test_intervals_for_half_the_noise_are_noticed(kit: Any) -> None:
    found = covered(kit, 260, 9.0, 4.5)
    assert found["AUROC"][1] < BETWEEN[0] and found["Brier score"][1] < BETWEEN[0]


def test_a_patient_of_many_rows_counts_as_one(kit: Any) -> None:
    """Three rows with the score of one add what the one adds, and the bins of a class hold one patient."""
    plan = kit.plan_for(kit.query("evaluation"))
    answers = answers_from(plan, kit.installed)
    one = answers.vector(kit.examples([0], [61.0], [1], [30.0], [9.0], [1]), lambda size: b"")
    rows = ([0, 0, 0], [61.0] * 3, [1] * 3, [30.0] * 3, [9.0] * 3, [1] * 3)
    three = answers.vector(kit.examples(*rows), lambda size: b"")
    assert three == pytest.approx(one)
    assert np.linalg.norm(three) <= 1 + 1e-9
    p = 1 / (1 + np.exp(-kit.slope * 1.1))
    bound = 29**0.5 / 4
    expected = {10 + 6: 1.0, 20 + 6: (p - 0.65) / 0.05 / 4, 31: 0.5, 32: (1 - p) ** 2 - 0.5, 33: -np.log(p) / 4 - 0.5}
    assert {place: one[place] * bound for place in np.flatnonzero(one)} == pytest.approx(expected)


def test_a_model_is_looked_at_on_test_patients_and_their_domain_is_charged(kit: Any) -> None:
    plan = kit.plan_for(kit.query("evaluation"))
    assert usual_domains(plan.task) == ("test",)
    assert plan.weights_files == (kit.model.file,)
    for others in ("training", "everyone"):
        with pytest.raises(ValidationError, match="did not train it"):
            kit.plan_for(kit.query("evaluation"), patients=others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows_per_patient": 2}, "counts as one"),
        ({"outcome": "sex"}, "no column of 0 and 1"),
        ({"outcome": "age"}, "no column of 0 and 1"),
        ({"model": {"layout": "0" * 64}}, "not one for the contract's 4 features"),
    ],
)
def test_a_query_that_makes_no_sense_is_no_plan(kit: Any, changes: dict[str, Any], message: str) -> None:
    if "model" in changes:
        changes = {"model": kit.model.model_dump() | changes["model"]}
    with pytest.raises(ValidationError, match=message):
        kit.plan_for(kit.query("evaluation", **changes))


def test_a_model_is_asked_for_what_it_predicts(kit: Any) -> None:
    line, logistic = kit.query("prediction_error").model.model_dump(), kit.model.model_dump()
    with pytest.raises(ValidationError, match="a model of a yes or no"):
        kit.query("evaluation", model=line)
    with pytest.raises(ValidationError, match="a model of a quantity"):
        kit.query("prediction_error", model=logistic)
    with pytest.raises(ValidationError, match="did not train it"):
        kit.plan_for(kit.query("prediction_error"), patients="everyone")
    with pytest.raises(ValidationError, match="no column of numbers"):
        kit.plan_for(kit.query("prediction_error", outcome="died"))


def test_a_site_scores_with_the_model_of_the_plan_and_no_other(kit: Any) -> None:
    plan = kit.plan_for(kit.query("evaluation"))
    with pytest.raises(UsageError, match="is not installed here"):
        answers_from(plan)
    with pytest.raises(UsageError, match="has been changed"):
        answers_from(plan, lambda file: kit.model_file[:-1] + b"\x01")
    other = kit.plan_for(kit.query("evaluation", model=kit.model.model_dump() | {"hash": "1" * 64}))
    with pytest.raises(UsageError, match="not the one that the plan names"):
        answers_from(other, kit.installed)


def test_a_score_that_is_no_number_says_nothing_of_the_outcome(kit: Any) -> None:
    statistic = statistic_for(kit.query("evaluation"), {}, 0.95)
    table = Table({}, {"died": np.array([0, 1])}, np.arange(2), scores={"q": np.array([0.5, 1.0])})
    strange = replace(table, scores={"q": np.array([np.nan, np.inf])})
    assert statistic.site_sum(strange).tolist() == statistic.site_sum(table).tolist()


def test_a_weights_file_of_another_model_with_the_same_names_is_not_the_plans(kit: Any) -> None:
    other = save({"dense0.weight": np.ones((1, 4), np.float32), "dense0.bias": np.zeros(1, np.float32)})
    with pytest.raises(UsageError, match="has been changed"):
        answers_from(kit.plan_for(kit.query("evaluation")), lambda file: other)
