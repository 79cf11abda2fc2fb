"""A statistics study over the deployed protocol: desks of real folders, officers, ledgers, masks and receipts."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from wardround.client.answers import answers_from
from wardround.client.governance import grant_for
from wardround.client.population import read_by
from wardround.client.released import site_report
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.members import Members
from wardround.conf.planning import make_plan
from wardround.conf.statistics import parse_statistics
from wardround.console.plan_words import in_words
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.ledger import Close, approve
from wardround.protocol.parameters import Total, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server.conductor import Conductor
from wardround.simulations.cohorts import declared_patients, gather
from wardround.simulations.statistics import count
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import Cell, expected, logistic_regression, opened, read

PATIENTS = 740
QUERIES = [
    {"name": "patients", "kind": "count", "by": ["sex"]},
    {"name": "age", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90}},
]


def planned(mode: str = "local", **statistics: Any) -> StudyPlan:
    privacy = {
        "none": {"mode": mode},
        "local": {"mode": mode, "epsilon": 3.0},
        "dist": {"mode": mode, "epsilon": 8.0, "epsilon_consortium": 3.0},
    }[mode]
    given = {"like": "heart_disease", "privacy": privacy, "statistics": {"queries": QUERIES} | statistics}
    configuration = parse_statistics(given)
    return make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())


ROUNDS = 3
LOGISTIC = {
    "name": "disease",
    "kind": "logistic_regression",
    "outcome": "num",
    "of": [{"column": "age", "lower": 30, "upper": 75}],
    "flags": ["sex"],
}


def in_rounds(mode: str) -> StudyPlan:
    return planned(mode, queries=[LOGISTIC], rounds=ROUNDS)


def total(plan: StudyPlan, conductor: Conductor) -> Cell:
    """The count of all patients."""
    model = conductor.folder.model(plan)
    assert model is not None
    return next(cell for cell in read(plan, model) if cell.query == "patients" and cell.group == ("all",))


@pytest.mark.parametrize(
    ("mode", "domains"),
    [("local", {"training": {1}, "test": {1}}), ("dist", {"training": {1}, "test": {1}, "consortium": {1}})],
)
def test_one_number_goes_from_rows_to_a_receipt_and_every_domain_that_was_read_is_charged_once(
    consortium: Any, mode: str, domains: dict[str, set[int]]
) -> None:
    plan = planned(mode)
    consortium.approve_everywhere(plan)
    conductor = consortium.conductor(plan)
    conductor.run()
    (receipt,) = conductor.folder.receipts()
    assert (receipt.state, chain_fault([receipt])) == ("closed", None)
    assert set(receipt.verified_signers(consortium.roster.identities)) == set(consortium.folders)
    assert all(line.outcome == "replied" and line.epsilon_at_most for line in receipt.sites)
    assert consortium.charged(plan) == domains
    all_patients = total(plan, conductor)
    assert all_patients.value is not None
    distance = abs(all_patients.value - PATIENTS)
    assert distance < 6 * all_patients.patients_noise, "the exact number of patients of the published table"
    assert distance > 1e-3, "there is no noise"
    # What the receipt names is what the table is made of.
    model = conductor.folder.model(plan)
    assert model is not None and model_hash(model) == receipt.model_after


def test_only_the_patients_that_the_plan_reads_are_counted_and_charged(consortium: Any) -> None:
    counts = {}
    for patients in ("training", "test"):
        plan = planned(patients=patients)
        consortium.approve_everywhere(plan)
        conductor = consortium.conductor(plan)
        conductor.run()
        counts[patients] = total(plan, conductor)
        assert consortium.charged(plan)[patients] == {1}
        others = [used for domain, used in consortium.charged(plan).items() if domain != patients]
        assert all(used == {0} for used in others)
    both = sum(cell.value or 0.0 for cell in counts.values())
    noise = sum(cell.patients_noise**2 for cell in counts.values()) ** 0.5
    assert abs(both - PATIENTS) < 6 * noise


def test_a_domain_without_a_grant_is_not_read(consortium: Any) -> None:
    """Officers have approved the training patients alone: a plan for everyone gets nothing, and nobody is charged."""
    plan = planned()
    consortium.approve_everywhere(planned(patients="training"))
    for site, folder in consortium.folders.items():
        ledger = folder.ledger()
        grant = grant_for(plan, site, "training")
        for officer in consortium.officers:
            grant = approve(grant, folder.identity().public.key.hex(), officer)
        ledger.record(grant)
        ledger.close()
    conductor = consortium.conductor(plan)
    conductor.run()
    (*_, receipt) = conductor.folder.receipts()
    assert receipt.state == "void"
    assert {line.detail for line in receipt.sites} == {"policy"}
    with pytest.raises(Unavailable, match="no figures"):
        total(plan, conductor)
    assert all(used == {0} for used in consortium.charged(plan).values())


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_a_coordinator_that_dies_while_it_adds_goes_on_and_costs_no_second_charge(consortium: Any, mode: str) -> None:
    """In every exchange one after another, always of the same study: the sums are opened once, with one charge."""
    plan = planned(mode)
    consortium.approve_everywhere(plan)
    _, died = consortium.run_dying(plan)
    assert died >= 5, "the study ended before the coordinator died in its exchanges"
    assert all(used == {1} for used in consortium.charged(plan).values())


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_every_round_of_a_logistic_regression_is_charged_and_signed_for(consortium: Any, mode: str) -> None:
    plan = in_rounds(mode)
    consortium.approve_everywhere(plan)
    conductor = consortium.conductor(plan)
    conductor.run()
    receipts = conductor.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * ROUNDS and chain_fault(receipts) is None
    assert all(used == {ROUNDS} for used in consortium.charged(plan).values())
    model = conductor.folder.model(plan)
    assert model is not None and model_hash(model) == receipts[-1].model_after
    rounds = opened(plan.task, model)
    assert [each.sites for each in rounds] == [4.0] * ROUNDS, "the sums of every round are in the result"
    cells = {cell.quantity: cell for cell in read(plan, model)}
    fit = cells["deviance, last round"]
    assert fit.patients is not None and abs(fit.patients - PATIENTS) < 6 * fit.patients_noise
    assert cells["noise of a gradient"].value, "there is no noise"


def test_over_the_wire_and_in_one_process_rounds_give_the_same_bytes_whenever_the_coordinator_dies(
    consortium: Any,
) -> None:
    """Without noise: every round asks at the coefficients that the rounds before it gave, after a restart too."""
    plan = in_rounds("none")
    consortium.approve_everywhere(plan)
    conductor, died = consortium.run_dying(plan)
    assert died >= ROUNDS
    model = conductor.folder.model(plan)
    given = {"like": "heart_disease", "privacy": {"mode": "none"}, "statistics": {"queries": [LOGISTIC]}}
    cohorts = gather(parse_statistics(given)).taking_part
    assert model is not None and model_hash(model) == model_hash(count(plan, cohorts, datetime.now(UTC).date()).model)
    first, second, third = opened(plan.task, model)
    assert len({each.sums["disease"].tobytes() for each in (first, second, third)}) == ROUNDS
    gradients = [float(np.abs(each.sums["disease"][0, 1:4]).max()) for each in (first, second, third)]
    assert gradients[2] < gradients[1] / 10 < gradients[0] / 100, "the steps do not lead to a maximum"


def test_a_closed_domain_refuses_and_so_does_a_second_round(consortium: Any) -> None:
    plan = planned()
    consortium.approve_everywhere(plan)
    folder = consortium.folders["va"]
    ledger = folder.ledger()
    close = Close(domain="test", reason="these patients are followed up elsewhere")
    for officer in consortium.officers:
        close = approve(close, folder.identity().public.key.hex(), officer)
    ledger.record(close)
    ledger.close()
    conductor = consortium.conductor(plan)
    conductor.run()
    (receipt,) = conductor.folder.receipts()
    assert receipt.line["va"].outcome != "replied"
    assert receipt.state == "closed", "three of four are enough"


def test_the_officer_reads_every_query_in_words_and_the_site_has_no_model_to_report(consortium: Any) -> None:
    plan = planned()
    text = "\n".join(in_words(plan))
    assert "patients" in text and "sex" in text and "age" in text
    folder = consortium.folders["va"]
    store = open_store(folder.database)
    members = Members(store, folder.patients_key())
    ledger = folder.ledger()
    with pytest.raises(UsageError, match="counts and trains nothing"):
        site_report(folder, plan, read_settings(folder.path), ledger, members, 1)
    ledger.close()
    store.close()


def halves(cells: list[Cell]) -> dict[str, float]:
    """Half an interval of each coefficient that is shown."""
    wanted = ("intercept", "age", "trestbps", "sex", "exang")
    return {c.quantity: (c.high - c.low) / 2 for c in cells if c.quantity in wanted and c.high and c.low is not None}


def as_they_turn_out(plan: StudyPlan, repetitions: int) -> dict[str, float]:
    """The median half of each coefficient's interval, over studies of the hospitals' own patients."""
    configuration = parse_statistics(
        {"like": "heart_disease", "privacy": {"mode": "none"}, "statistics": {"queries": QUERIES}}
    )
    rows = [read_by(plan.task, cohort) for cohort in gather(configuration).taking_part]
    answers, strategy, random = answers_from(plan), strategy_for(plan), np.random.default_rng(20261129)
    assert isinstance(strategy, Adding)
    found: dict[str, list[float]] = {}
    for _ in range(repetitions):
        state = strategy.init(plan.starting_model()).under(plan)
        for number in range(1, plan.rounds + 1):
            added = np.sum([answers.vector(each, random.bytes, state.model) for each in rows], axis=0)
            state = strategy.step(state.at(number), Total(strategy.added(added), len(rows)))
        for name, half in halves(read(plan, state.model)).items():
            found.setdefault(name, []).append(half)
    return {name: float(np.median(each)) for name, each in found.items()}


@pytest.mark.parametrize(
    ("epsilon", "of", "flags"),
    [
        (8.0, [("age", 30, 75)], ["sex"]),
        (30.0, [("age", 20, 90), ("trestbps", 80, 200)], ["sex", "exang"]),
    ],
)
def test_the_error_that_is_told_beforehand_is_no_smaller_than_that_of_heart_disease(
    epsilon: float, of: list[Any], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be: of predictors that fill their range, and an outcome of one in two that nothing predicts."""
    columns = [{"column": name, "lower": low, "upper": high} for name, low, high in of]
    asked = {"rounds": 4, "queries": [LOGISTIC | {"of": columns, "flags": flags}]}
    given = {"like": "heart_disease", "privacy": {"mode": "local", "epsilon": epsilon}, "statistics": asked}
    configuration = parse_statistics(given | {"epsilon_cap": 50})
    plan = make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())
    found = as_they_turn_out(plan, 8)
    told = halves(expected(plan))
    assert set(told) == set(found) == {"intercept", *flags, *(name for name, _, _ in of)}
    ratios = {name: told[name] / found[name] for name in told}
    assert min(ratios.values()) > 0.8 and max(ratios.values()) < 2.5, ratios
    monkeypatch.setattr(logistic_regression, "NARROW", 3**-0.5)
    monkeypatch.setattr(logistic_regression, "RARE", 0.5)
    rosy = halves(expected(plan))
    assert min(rosy[name] / found[name] for name in found) < 0.8
