"""Figures of each hospital by itself: its own noise, its own place and its own charge, and no plan that hides them."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from wardround.client import answers as site_answers
from wardround.client.answers import answers_from
from wardround.client.connectors import Cohort
from wardround.conf.statistics import parse_statistics
from wardround.console.reports.statistics_words import whose_words
from wardround.console.statistics_table import as_csv
from wardround.protocol.errors import Unavailable
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.statistics import count
from wardround.strategies.statistics import expected, read

SITES = ("east", "north", "south")
DECLARED = {"east": 200, "north": 100, "south": 400}


def hospital(kit: Any, site: str, patients: int) -> Cohort:
    """``patients`` who train, of whom every fourth is 30 years old and the others 70; and 40 of 50 years who test."""
    number, one = np.arange(patients), np.zeros(40)
    rows = np.zeros(patients)
    age = np.where(number % 4 == 0, 30, 70)
    train = kit.examples(number, age, rows, 30 + rows, 100 + rows, rows)
    test = kit.examples(np.arange(40), 50 + one, one, 30 + one, 100 + one, one)
    ids = (tuple(f"{site}-{each}" for each in number), tuple(f"{site}-test-{each}" for each in range(40)))
    return Cohort(site, train, test, "split", train_ids=ids[0], test_ids=ids[1])


def planned(kit: Any, *queries: Any, **more: Any) -> Any:
    asked = queries or (kit.query("count", by=[{"column": "age", "cuts": [50]}]),)
    return kit.plan_for(*asked, **{"by_site": SITES, "patients": "training", "declared": DECLARED} | more)


def cohorts(kit: Any) -> list[Cohort]:
    return [hospital(kit, site, patients) for site, patients in DECLARED.items()]


def test_without_noise_every_hospital_has_its_own_figures_and_there_are_none_of_all(kit: Any) -> None:
    found = count(planned(kit), cohorts(kit), kit.today)
    values = {(cell.site, *cell.group): cell.value for cell in found.cells}
    for site, patients in DECLARED.items():
        assert values[site, "below 50"] == pytest.approx(patients / 4)
        assert values[site, "50 and more"] == pytest.approx(patients * 3 / 4)
    assert {key[0] for key in values} == set(SITES) and len(values) == 9


def test_each_figure_has_the_full_noise_of_its_hospital_and_each_ledger_one_charge(kit: Any) -> None:
    plan = planned(kit, mode="local", noise=3.0)
    found = count(plan, cohorts(kit), kit.today)
    assert found.charged == dict.fromkeys(SITES, 1)
    assert found.records[0].warning == ""
    for cell in found.cells:
        if cell.group == ("below 50",):
            assert cell.patients_noise == pytest.approx(3.0)
            assert abs(cell.value - DECLARED[cell.site] / 4) < 6 * 3.0
            assert cell.value != DECLARED[cell.site] / 4


def test_what_a_hospital_adds_is_nothing_in_the_place_of_others_whoever_its_patients_are(kit: Any) -> None:
    plan = planned(kit, mode="local", noise=3.0)
    answers, one = answers_from(plan), np.random.default_rng(1)
    vector = answers.vector(cohorts(kit)[1].train, one.bytes, site="north").reshape(3, -1)
    assert vector.shape == (3, 3) and not vector[[0, 2]].any()
    assert vector[1, 0] == 1.0 and vector[1, 1:].all()


def test_one_patient_moves_all_places_together_by_one_at_most(kit: Any) -> None:
    answers = answers_from(planned(kit, kit.query("mean"), kit.query("histogram", name="h")))
    rows = [(age, 0.0, 30.0, 9.0, 0.0) for age in (20.0, 60.0, 100.0)]

    def added(chosen: list[Any]) -> Any:
        cells = np.array(chosen).reshape(-1, 5)
        return answers.vector(kit.examples(np.arange(len(chosen)), *cells.T), lambda size: b"", site="east")

    for row in rows:
        for others in ([], rows):
            moved = float(np.linalg.norm(added([*others, row]) - added(others)))
            assert 0.8 < moved <= 1 + 1e-9


def test_a_hospital_that_does_not_answer_has_no_figures(kit: Any) -> None:
    plan = planned(kit, mode="local", noise=3.0).model_copy(update={"min_sites": 1})
    found = count(plan, cohorts(kit), kit.today, faults=[Fault("north", 1, FaultKind.UNREACHED)])
    assert {cell.site for cell in found.cells} == {"east", "south"}
    with pytest.raises(Unavailable, match="void"):
        read(plan, plan.starting_model())


def test_hospitals_that_add_no_noise_are_noticed(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_answers, "noisy_sum", lambda exact, bound, noise, random_bytes: exact)
    query = kit.query("histogram", cuts=list(range(1, 1000)))
    plan = planned(kit, query, mode="local", noise=40.0)
    assert "does every site add its noise?" in count(plan, cohorts(kit), kit.today).records[0].warning


def test_the_proposal_says_the_error_at_each_hospital_by_its_own_patients(kit: Any) -> None:
    plan = planned(kit, kit.query("mean"), mode="local", noise=3.0)
    reach = {cell.site: cell.high - cell.low for cell in expected(plan) if cell.quantity == "mean"}
    assert reach["north"] > reach["east"] > reach["south"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "dist", "noise": 3.0, "secure": True}, "no privacy mode 'dist'"),
        ({"mode": "local", "noise": 3.0, "secure": True}, "secure aggregation off"),
        ({"by_site": ("east", "north")}, "every hospital of the plan"),
        ({"by_site": ("north", "east", "south")}, "in the order of their names"),
    ],
)
def test_a_plan_that_could_not_keep_its_promise_is_none(kit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        planned(kit, **changes)


def test_what_has_rounds_or_counts_hospitals_is_not_released_by_hospital(kit: Any) -> None:
    for query in (kit.query("logistic_regression"), kit.query("count", at_least_sites=2)):
        with pytest.raises(ValidationError, match="by_site has figures of one hospital"):
            planned(kit, query)


def test_a_model_is_evaluated_at_each_hospital_and_the_test_domain_is_charged(kit: Any) -> None:
    plan = planned(kit, kit.query("evaluation"), patients="test")
    found = count(plan, cohorts(kit), kit.today, installed=kit.installed)
    briers = {cell.site: cell.value for cell in found.cells if cell.quantity == "Brier score"}
    assert briers == pytest.approx(dict.fromkeys(SITES, 0.25)), "test patients of probability 1/2"


def test_the_file_the_officer_and_the_table_say_whose_figures_they_are(kit: Any) -> None:
    names = ["cleveland", "hungarian", "switzerland", "va"]
    asked = {"by_site": names, "queries": [{"name": "n", "kind": "count"}]}
    given = {"like": "heart_disease", "privacy": {"mode": "local", "epsilon": 1.0}, "statistics": asked}
    configuration = parse_statistics(given)
    assert configuration.secagg == "off" and configuration.task.by_site == tuple(names)
    assert "each hospital by itself are released, with its name" in whose_words(configuration.task)
    cells = count(planned(kit), cohorts(kit), kit.today).cells
    lines = as_csv(cells).splitlines()
    assert lines[0].startswith("query,site,group") and lines[1].startswith("q,east,below 50,count,50")


def test_a_plan_that_does_not_ask_is_as_it_was(kit: Any) -> None:
    plan = kit.plan_for(kit.query("count"))
    assert "by_site" not in plan.task.model_dump() and plan.task.added == plan.task.numbers
