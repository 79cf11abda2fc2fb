"""One hospital in a statistics study: whom it adds up, its noise, its charges, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from wardround.client.answers import answers_from
from wardround.client.connectors import Cohort
from wardround.client.governance import budget_for, grant_for
from wardround.client.population import declared_for, ids_of, read_by, usual_domains
from wardround.client.site import Phase, Site
from wardround.client.store.database import open_store
from wardround.client.store.ledger import Ledger
from wardround.client.tasks import task_from
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import Refusal, RefusalCode, Reply
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.plan import StrategySpec, StudyPlan
from wardround.server.study import Study
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.statistics import count
from wardround.strategies import STRATEGIES, check_strategy, strategy_for, strategy_from

PATIENTS, TESTING = 30, 12


def cohort(kit: Any, site: str = "north", patients: int = PATIENTS) -> Cohort:
    """Of ``patients`` the last ``TESTING`` test; every second is 30 years old, the others are 70."""
    number = np.arange(patients)
    age, rows = np.where(number % 2, 70, 30), np.zeros(patients)
    parts = [number < patients - TESTING, number >= patients - TESTING]
    made = [
        kit.examples(np.arange(part.sum()), age[part], rows[part], 30 + rows[part], 100 + rows[part], rows[part])
        for part in parts
    ]
    ids = [tuple(f"{site}-{each}" for each in number[part]) for part in parts]
    return Cohort(site, made[0], made[1], "split", train_ids=ids[0], test_ids=ids[1])


def site_of(kit: Any, plan: StudyPlan, granted: Any = None, **more: Any) -> Site:
    ledger = Ledger(open_store(None), "north")
    for domain in usual_domains(plan.task):
        ledger.record(budget_for(plan, 8.0, 1e-4, domain))
        if granted is None or domain in granted:
            ledger.record(grant_for(plan, "north", domain))
    return Site(
        plan,
        cohort(kit),
        answers_from(plan),
        strategy_for(plan),
        ledger,
        domains=usual_domains(plan.task),
        **more,
    )


def answer_of(kit: Any, site: Site) -> Any:
    request = Study(site.plan, strategy_for(site.plan)).request()
    return parse_answer(bytes_to_send(site.answer(request, kit.today)), "north")


@pytest.mark.parametrize(("patients", "expected"), [("everyone", 30), ("training", 18), ("test", 12)])
def test_whom_the_plan_reads_is_added_up_and_no_one_else(kit: Any, patients: str, expected: int) -> None:
    plan = kit.plan_for(kit.query("count", by=[]), patients=patients)
    site = site_of(kit, plan)
    reply = answer_of(kit, site)
    assert isinstance(reply, Reply) and reply.vector.tolist() == [expected]
    assert {d: site.ledger.charged(plan.digest, d) for d in usual_domains(plan.task)} == dict.fromkeys(
        usual_domains(plan.task), 1
    )
    assert declared_for(plan.task, site.cohort) == 50
    ids = ids_of(plan.task, site.cohort)
    assert ids is not None and len(ids) == read_by(plan.task, site.cohort).patients == expected


def test_who_has_opted_out_is_not_counted(kit: Any) -> None:
    plan = kit.plan_for(kit.query("count", by=[]))
    mask = np.ones(PATIENTS, bool)
    mask[[0, 3, 25]] = False
    site = site_of(kit, plan, consent=lambda: mask)
    assert answer_of(kit, site).vector.tolist() == [27]


def test_what_leaves_has_noise_of_the_plans_deviation_on_its_lattice(kit: Any) -> None:
    plan = kit.plan_for(kit.query("histogram", cuts=list(range(1, 2001))), mode="local", noise=3.0)
    first, second = (answer_of(kit, site_of(kit, plan)).vector for _ in range(2))
    assert not np.array_equal(first, second), "noise is drawn anew"
    exact = answers_from(kit.plan_for(kit.query("histogram", cuts=list(range(1, 2001))))).vector(
        read_by(plan.task, cohort(kit)), lambda size: b""
    )
    for vector in (first, second):
        assert np.std(vector - exact) == pytest.approx(3.0, rel=0.08)
        assert np.array_equal(vector * 512, np.rint(vector * 512)), "a point of the lattice, 2^-9 here"


def test_a_number_is_held_within_what_a_mask_can_carry(kit: Any) -> None:
    """However many patients there are, a site refuses nothing: the sum is held, and told nobody why."""
    plan = kit.plan_for(kit.query("count", by=[]), mode="local", noise=1.0, declared=dict.fromkeys("abc", 50))
    most = plan.most_of_a_statistic
    assert most == 16 * 50 - 9
    many = cohort(kit, patients=1000)
    drawn = answers_from(plan).vector(read_by(plan.task, many), np.random.default_rng(1).bytes)
    assert abs(drawn[0] - most) < 9


def test_without_a_grant_on_each_domain_nothing_is_read_or_charged(kit: Any) -> None:
    plan = kit.plan_for(kit.query("count", by=[]), mode="local", noise=3.0)
    site = site_of(kit, plan, granted=("training",))
    refused = answer_of(kit, site)
    assert isinstance(refused, Refusal) and refused.code is RefusalCode.POLICY
    assert [site.ledger.charged(plan.digest, domain) for domain in ("test", "training")] == [0, 0]


def test_a_crash_after_the_sum_was_drawn_stays_charged_and_is_not_drawn_again(kit: Any) -> None:
    plan = kit.plan_for(kit.query("count", by=[]), mode="local", noise=3.0)
    site = site_of(kit, plan)
    request = Study(plan, strategy_for(plan)).request()
    work = site.work(request, kit.today)
    while next(work) is not Phase.TRAINED:
        pass
    work.close()
    site.recover()
    again = parse_answer(bytes_to_send(site.answer(request, kit.today)), "north")
    assert isinstance(again, Refusal) and again.code is RefusalCode.UNAVAILABLE
    assert [site.ledger.charged(plan.digest, domain) for domain in ("test", "training")] == [1, 1]


def test_a_site_that_is_stopped_before_it_adds_up_says_nothing(kit: Any) -> None:
    site = site_of(kit, kit.plan_for(kit.query("count", by=[])), stopped=lambda: True)
    assert isinstance(answer_of(kit, site), Refusal)


@pytest.mark.parametrize(("mode", "secure"), [("none", False), ("none", True), ("local", True), ("dist", True)])
def test_the_sum_of_five_hospitals_is_that_of_their_patients(kit: Any, mode: str, secure: bool) -> None:
    sites = tuple("abcde")
    noise = None if mode == "none" else 2.0
    query = kit.query("count", by=[{"column": "age", "cuts": [50]}])
    plan = kit.plan_for(query, mode=mode, secure=secure, noise=noise, declared=dict.fromkeys(sites, 50))
    found = count(plan, [cohort(kit, site) for site in sites], kit.today)
    cells = {cell.group[0]: cell for cell in found.cells}
    deviation = 0.0 if noise is None else noise * 5**0.5
    assert cells["all"].patients_noise == pytest.approx(deviation * 2**0.5)
    for name, exact in (("below 50", 75), ("50 and more", 75), ("all", 150)):
        assert abs(cells[name].value - exact) < 1e-3 + 6 * cells[name].patients_noise
    assert cells["all"].value == pytest.approx(cells["below 50"].value + cells["50 and more"].value)
    assert found.charged == dict.fromkeys(sites, 1)
    assert found.records[0].warning == ""
    assert found.model[0] == 5


def test_the_interval_knows_how_many_hospitals_are_in_the_sum(kit: Any) -> None:
    """One of five is lost before it adds: four shares of noise are in the sum, and the figures are those of four."""
    sites = tuple("abcde")
    plan = kit.plan_for(
        kit.query("count", by=[]), mode="local", secure=True, noise=2.0, declared=dict.fromkeys(sites, 50)
    )
    faults = [Fault("c", 1, FaultKind.UNREACHED)]
    found = count(plan, [cohort(kit, site) for site in sites], kit.today, faults=faults)
    (cell,) = found.cells
    assert cell.patients_noise == pytest.approx(4.0)
    assert abs(cell.value - 120) < 24
    assert found.charged["c"] == 0


def test_a_site_that_adds_no_noise_is_noticed_in_the_sum(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plausibility check of training (``server.plausible``) holds for a sum of figures too."""
    from wardround.client import answers

    monkeypatch.setattr(answers, "noisy_sum", lambda exact, bound, noise, random_bytes: exact)
    query = kit.query("histogram", cuts=list(range(1, 1000)))
    plan = kit.plan_for(query, mode="local", secure=True, noise=4.0, declared=dict.fromkeys("abc", 50))
    found = count(plan, [cohort(kit, site) for site in "abc"], kit.today)
    assert "does every site add its noise?" in found.records[0].warning


def test_what_counts_and_what_trains_do_not_mix(kit: Any) -> None:
    plan = kit.plan_for(kit.query("count", by=[]))
    with pytest.raises(UsageError, match="counts and trains nothing"):
        task_from(plan)
    with pytest.raises(UsageError, match="do not belong together"):
        check_strategy(plan, STRATEGIES["fedavg"]())
    assert strategy_from(StrategySpec(name="statistics")).name == "statistics"
    assert "statistics" not in STRATEGIES
