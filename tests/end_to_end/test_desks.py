"""The deployed protocol in one process: desks of real folders behind the real conductor."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.database import open_store
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server.carrier import Answered, Silent
from wardround.server.conductor import Conductor, Wanted
from wardround.server.store.studies import StudyFolder
from wardround.simulations.cohorts import gather
from wardround.simulations.desks import DeskCarrier
from wardround.simulations.experiment import Experiment
from wardround.strategies import strategy_from

Planned = Callable[..., StudyPlan]


def conduct(consortium: Any, plan: StudyPlan, carrier: DeskCarrier | None = None, **options: Any) -> Conductor:
    folder = StudyFolder.create(consortium.path / "hub", plan)
    carrier = carrier or DeskCarrier(plan.digest, {site: consortium.desk(site) for site in consortium.folders})
    return Conductor(
        folder,
        consortium.coordinator,
        lambda: consortium.roster,
        carrier,
        options.get("wanted", lambda: Wanted.RUNNING),
        sleep=options.get("sleep", lambda seconds: None),
    )


def in_process_model(*overrides: str) -> str:
    """The hash of the model that the simulator makes of the same plan."""
    configuration = parse_configuration(compose_configuration(["study=heart_disease", *overrides]))
    gathered, today = gather(configuration), datetime.now(UTC).date()
    plan = make_plan(configuration, gathered.declared, today)
    experiment = Experiment(plan, task_from(plan), strategy_from(plan.strategy), gathered.taking_part, today)
    return model_hash(experiment.run())


def test_a_study_with_privacy_and_secure_sums_ends_with_receipts_that_every_hospital_signed(
    consortium: Any, make_plan_of: Planned
) -> None:
    plan = make_plan_of("rounds=3", "privacy.noise_multiplier=2.84")
    for site in consortium.folders:
        consortium.approve(plan, site)
    conductor = conduct(consortium, plan)
    conductor.run()
    receipts = conductor.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * 3
    assert chain_fault(receipts) is None
    known = consortium.roster.identities
    for receipt in receipts:
        assert set(receipt.verified_signers(known)) == set(consortium.folders)
        assert all(line.outcome == "replied" and line.epsilon_at_most for line in receipt.sites)
    assert receipts[0].sites[0].epsilon_at_most < receipts[2].sites[0].epsilon_at_most
    # c + 1 = 2 others are asked a round, going round: after two rounds all three have cosigned, and the coordinator.
    for site, folder in consortium.folders.items():
        ledger = folder.ledger()
        assert ledger.charged(plan.digest) == 3
        assert set(ledger.state.countersigned) == {*consortium.folders, "coordinator"} - {site}
        ledger.close()


def test_without_protection_the_model_is_the_simulators_bit_for_bit(consortium: Any, make_plan_of: Planned) -> None:
    overrides = ("rounds=4", "privacy=none")
    plan = make_plan_of(*overrides)
    for site in consortium.folders:
        consortium.approve(plan, site)
    conductor = conduct(consortium, plan)
    conductor.run()
    assert conductor.folder.receipts()[-1].model_after == in_process_model(*overrides)


@pytest.mark.parametrize("standing", ["nobody approved", "one revoked"])
def test_a_plan_waits_until_enough_officers_have_approved_it(
    consortium: Any, make_plan_of: Planned, standing: str
) -> None:
    plan = make_plan_of("rounds=1", "privacy.noise_multiplier=2.84")

    def approve_them(seconds: float) -> None:
        for site in consortium.folders:
            if not any(of == plan.digest for of, _ in consortium.folders[site].ledger().state.grants):
                consortium.approve(plan, site)

    conductor = conduct(consortium, plan, sleep=approve_them)
    conductor.run()
    assert conductor.seen.state == "finished"


class Crash(Exception):
    """The coordinator's process ends here."""


class Crashing(DeskCarrier):
    """Ends the coordinator in exchange number ``at``, after ``answers`` sites have been heard."""

    def __init__(self, *arguments: Any, at: int, answers: int) -> None:
        super().__init__(*arguments)
        self.at, self.answers = at, answers

    def exchange(self, *arguments: Any, **options: Any) -> Iterator[Answered | Silent]:
        for heard, outcome in enumerate(super().exchange(*arguments, **options)):
            if self.exchanges == self.at and heard >= self.answers:
                raise Crash
            yield outcome


@pytest.mark.slow
@pytest.mark.parametrize("answers", [0, 2])
def test_a_coordinator_that_dies_in_any_exchange_goes_on_and_costs_no_hospital_a_second_charge(
    tmp_path: Path, make_consortium_of: Callable[..., Any], make_plan_of: Planned, answers: int
) -> None:
    """The hospitals' daemons live on, as their SuperNodes find another run for the same plan."""
    plan = make_plan_of("rounds=2", "privacy.noise_multiplier=2.84")
    at, crashed = 1, True
    while crashed:
        made = make_consortium_of(tmp_path / f"{answers}-{at}")
        for site in made.folders:
            made.approve(plan, site)
        desks = {site: made.desk(site) for site in made.folders}
        crashed = False
        try:
            conduct(made, plan, Crashing(plan.digest, desks, at=at, answers=answers)).run()
        except Crash:
            crashed = True
            conduct(made, plan, DeskCarrier(plan.digest, desks)).run()
        folder = StudyFolder.create(made.path / "hub", plan)
        receipts = folder.receipts()
        assert chain_fault(receipts) is None, at
        assert [r.round_number for r in receipts if r.state == "closed"] == [1, 2], at
        for site, desk in desks.items():
            assert desk.ledger.charged(plan.digest) == 2, (at, site)
        at += 1
    assert at > 13, "the study has more exchanges than that"


@pytest.mark.parametrize("lost", ["hungarian", "va"])
def test_a_daemon_that_is_started_again_asks_its_witnesses_and_joins_the_next_round(
    consortium: Any, make_plan_of: Planned, lost: str
) -> None:
    plan = make_plan_of("rounds=4", "privacy.noise_multiplier=2.84")
    for site in consortium.folders:
        consortium.approve(plan, site)
    desks = {site: consortium.desk(site) for site in consortium.folders}
    carrier = DeskCarrier(plan.digest, desks)
    conductor = conduct(consortium, plan, carrier)
    restarted = []

    def told(seen: Any) -> None:
        if seen.round_number == 2 and seen.phase == "training" and not restarted:
            restarted.append(True)
            carrier.desks[lost] = consortium.desk(lost)

    conductor._told = told
    conductor.run()
    outcomes = [receipt.line[lost].outcome for receipt in conductor.folder.receipts() if receipt.state == "closed"]
    assert outcomes[0] == "replied" and outcomes[-1] == "replied", outcomes
    assert "refused" in outcomes, "it had lost its session"


def test_a_ledger_that_was_put_back_is_noticed_before_the_first_round_after_it(
    consortium: Any, make_plan_of: Planned, tmp_path: Path
) -> None:
    """The witnesses of one study hold heads that the copy does not know: the site joins no session any more."""
    import shutil

    first, second = make_plan_of("rounds=4", "privacy.noise_multiplier=2.84"), make_plan_of("rounds=3")
    for plan in (first, second):
        for site in consortium.folders:
            consortium.approve(plan, site)
    place = consortium.folders["va"].database
    old = tmp_path / "old.sqlite"
    store = open_store(place)
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store.close()
    shutil.copy(place, old)
    conduct(consortium, first).run()
    for file in place.parent.glob("ledger.sqlite*"):
        file.unlink()
    shutil.copy(old, place)
    desks = {site: consortium.desk(site) for site in consortium.folders}
    conductor = conduct(consortium, second, DeskCarrier(second.digest, desks))
    conductor.run()
    assert desks["va"].ledger.missing_head() is not None
    assert desks["va"].ledger.charged(second.digest) == 0
    assert all(receipt.line["va"].outcome != "replied" for receipt in conductor.folder.receipts())


def test_a_study_in_mode_dist_ends_with_both_curves_charged(consortium: Any, make_plan_of: Planned) -> None:
    plan = make_plan_of("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5")
    for site in consortium.folders:
        consortium.approve(plan, site)
    conductor = conduct(consortium, plan)
    conductor.run()
    assert [receipt.state for receipt in conductor.folder.receipts()] == ["closed"] * 3
    for folder in consortium.folders.values():
        ledger = folder.ledger()
        assert ledger.charged(plan.digest, "training") == ledger.charged(plan.digest, "consortium") == 3
        ledger.close()


def test_a_pilot_of_two_hospitals_runs_without_secure_sums_and_says_so(
    tmp_path: Path, make_consortium_of: Callable[..., Any], make_plan_of: Planned
) -> None:
    from wardround.console.plan_words import in_words

    sites = ("cleveland", "hungarian")
    declared = ("data.dataset=null", "+data.declared={cleveland:200,hungarian:200}")
    plan = make_plan_of("rounds=2", "privacy.noise_multiplier=2.84", "min_sites=2", *declared)
    assert not plan.privacy.secure_aggregation
    assert any("PILOT OF 2 HOSPITALS" in line for line in in_words(plan))
    made = make_consortium_of(tmp_path / "pilot", sites=sites)
    for site in sites:
        made.approve(plan, site)
    conductor = conduct(made, plan)
    conductor.run()
    assert [receipt.state for receipt in conductor.folder.receipts()] == ["closed"] * 2
