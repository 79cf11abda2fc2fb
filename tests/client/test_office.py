"""The office: what people of a site may do beside a running daemon, on a real ledger and a real list of plans."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wardround.client.daemon import DaemonStatus
from wardround.client.desk import Desk, Switches
from wardround.client.governance import CONSORTIUM_DOMAIN, grant_for, open_domain
from wardround.client.office import RECORDABLE, Office
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.events import Unprotected
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Cancel, Refuse, Reserve, Start, Waive, approve
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan

PLAN = ("rounds=3", "privacy.noise_multiplier=2.84")
DIST = ("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5")


def plan_of(*overrides: str) -> StudyPlan:
    declared = "+data.declared={east:200,north:200,south:200}"
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared, *overrides])
    return make_plan(parse_configuration(given), {"east": 200, "north": 200, "south": 200}, datetime.now(UTC).date())


class Daemon:
    """What the office asks of a daemon, remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def status(self) -> DaemonStatus:
        return DaemonStatus("north", "running", "up", "", "", "", 0, 0, "1", "00", 1, 0.0, "")

    def pause(self, reason: str) -> None:
        self.said.append(f"pause {reason}")

    def resume(self) -> None:
        self.said.append("resume")

    def stop(self) -> None:
        self.said.append("stop")

    def interrupt(self, plan: str) -> None:
        self.said.append(f"interrupt {plan}")

    def let(self, plan: str) -> None:
        self.said.append(f"let {plan}")

    def report(self, plan: StudyPlan, store: Any) -> str:
        return f'{{"plan": "{plan.digest}"}}'


class Site:
    """A hospital's folder on today's clock, with two officers and its office; nothing is approved yet."""

    def __init__(self, path: Path) -> None:
        self.anna, self.ben = Identity.generate("anna"), Identity.generate("ben")
        self.folder = SiteFolder.create(path, "north", [self.anna.public, self.ben.public])
        self.key = self.folder.identity().public.key.hex()
        self.daemon = Daemon()
        self.office = Office(self.folder, self.daemon)

    def proposed(self, *overrides: str) -> StudyPlan:
        plan = plan_of(*(overrides or PLAN))
        store = open_store(self.folder.database)
        Studies(store).add(plan.canonical)
        store.close()
        return plan

    def signed(self, fact: Any, *officers: Identity) -> bytes:
        for officer in officers or (self.anna,):
            fact = approve(fact, self.key, officer)
        content: bytes = fact.model_dump_json().encode()
        return content

    def opened(self, *domains: str) -> None:
        self.office.record([self.signed(open_domain(domain, 8.0, 1e-4)) for domain in domains])

    def facts(self, kind: type) -> list[Any]:
        return [fact for fact in self.folder.ledger().facts() if isinstance(fact, kind)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "north")
    yield made
    made.office.close()


def test_a_plan_is_proposed_then_approved_then_revoked_by_what_officers_signed(site: Site) -> None:
    plan = site.proposed()
    site.opened("training")
    assert site.office.study(plan.digest).standing is Standing.PROPOSED
    grant = grant_for(plan, "north")
    site.office.record([site.signed(grant)])
    found = site.office.study(plan.digest)
    assert (found.standing, found.fault, found.rounds_charged) == (Standing.APPROVED, "", 0)
    assert [(line.domain, line.version, line.blocks, line.used) for line in found.grants] == [("training", 1, 3, 0)]
    site.office.record([site.signed(grant.model_copy(update={"version": 2, "blocks": 0}))])
    assert site.office.study(plan.digest).standing is Standing.REVOKED
    assert site.daemon.said == [f"let {plan.digest}", f"interrupt {plan.digest}"]
    site.office.record([site.signed(grant.model_copy(update={"version": 3}))])
    assert site.office.study(plan.digest).standing is Standing.APPROVED
    assert site.daemon.said[-1] == f"let {plan.digest}"


@pytest.mark.parametrize("fault", ["nobody signed", "a stranger signed", "signed something else"])
def test_a_grant_that_no_officer_signed_changes_nothing(site: Site, fault: str) -> None:
    plan = site.proposed()
    site.opened("training")
    grant = grant_for(plan, "north")
    content = {
        "nobody signed": grant.model_dump_json().encode(),
        "a stranger signed": site.signed(grant, Identity.generate("anna")),
        "signed something else": site.signed(grant).replace(b'"blocks":3', b'"blocks":30'),
    }[fault]
    with pytest.raises(UsageError):
        site.office.record([content])
    assert site.office.study(plan.digest).standing is Standing.PROPOSED
    assert site.daemon.said == []
    site.office.record([site.signed(grant)])
    assert site.office.study(plan.digest).standing is Standing.APPROVED, "the same grant, signed, is taken"


def test_of_several_facts_all_are_written_or_none(site: Site) -> None:
    """A grant on two domains whose second half is wrong: the first half must not stand alone."""
    plan = site.proposed(*DIST)
    site.opened("training", CONSORTIUM_DOMAIN)
    first = site.signed(grant_for(plan, "north"))
    second = grant_for(plan, "north", CONSORTIUM_DOMAIN)
    with pytest.raises(UsageError, match="version"):
        site.office.record([first, site.signed(second.model_copy(update={"version": 2}))])
    assert site.office.study(plan.digest).grants == ()
    assert site.daemon.said == []
    site.office.record([first, site.signed(second)])
    assert [line.domain for line in site.office.study(plan.digest).grants] == [CONSORTIUM_DOMAIN, "training"]


def test_a_waiver_and_the_grant_that_needs_it_may_come_together(site: Site) -> None:
    plan = site.proposed("privacy=none", "rounds=2")
    site.opened("training")
    both = (site.anna, site.ben)
    waiver = Waive(domain="training", plan=plan.digest, reason="public data of 1988")
    grant = site.signed(grant_for(plan, "north"))
    with pytest.raises(UsageError, match="waiver"):
        site.office.record([grant])
    with pytest.raises(UsageError, match="2 officers"):
        site.office.record([site.signed(waiver, both[0]), grant])
    assert site.office.study(plan.digest).waived == ()
    second = site.signed(grant_for(plan, "north").model_copy(update={"version": 2}))
    with pytest.raises(UsageError, match="version"):
        site.office.record([site.signed(waiver, *both), second])
    assert site.office.study(plan.digest).waived == (), "a waiver whose grant is wrong is not written either"
    site.office.record([site.signed(waiver, *both), grant])
    found = site.office.study(plan.digest)
    assert (found.standing, found.waived) == (Standing.APPROVED, ("training",))


def test_the_facts_of_the_daemon_itself_are_not_taken_from_people(site: Site) -> None:
    plan = site.proposed()
    site.opened("training")
    site.office.record([site.signed(grant_for(plan, "north"))])
    block = "b" * 8
    own = [
        Reserve(domain="training", block=block, plan=plan.digest, round_number=1, event=plan.round_event("north")),
        Start(block=block),
        Cancel(block=block),
        Refuse(plan=plan.digest, round_number=0, reason="x"),
    ]
    for fact in own:
        assert not isinstance(fact, RECORDABLE)
        with pytest.raises(UsageError, match="may not append"):
            site.office.record([fact.model_dump_json().encode()])
    for junk in (b"", b"{}", b'{"kind": "no such"}', b"\xff\xfe"):
        with pytest.raises(UsageError, match="no fact"):
            site.office.record([junk])
    assert site.office.study(plan.digest).rounds_charged == 0


def test_an_officers_refusal_stops_the_plan_and_its_reason_stays_in_the_ledger(site: Site) -> None:
    plan = site.proposed()
    site.opened("training")
    site.office.record([site.signed(grant_for(plan, "north"))])
    with pytest.raises(UsageError, match="reason"):
        site.office.refuse(plan.digest, " \n ")
    with pytest.raises(UsageError, match="no such plan"):
        site.office.refuse("0" * 64, "the board said no")
    site.office.refuse(plan.digest, "the board\nsaid no")
    found = site.office.study(plan.digest)
    assert (found.standing, found.refused) == (Standing.REFUSED, "the board said no")
    assert site.daemon.said[-1] == f"interrupt {plan.digest}"
    assert [fact.reason for fact in site.facts(Refuse)] == ["an officer refused the plan: the board said no"]
    site.office.record([site.signed(grant_for(plan, "north").model_copy(update={"version": 2}))])
    assert site.office.study(plan.digest).standing is Standing.APPROVED, "a later signature takes the refusal back"


def test_a_plan_beyond_the_sites_policy_says_so_and_one_within_it_does_not(site: Site) -> None:
    plan = site.proposed()
    assert site.office.study(plan.digest).fault == ""
    (site.folder.path / "policy.yaml").write_text("rounds_at_most: 2\n")
    assert "3 rounds" in site.office.study(plan.digest).fault
    public = site.proposed("privacy=none", "rounds=2")
    assert "does not allow" in site.office.study(public.digest).fault


def test_a_plan_that_costs_more_than_it_says_is_refused_by_office_and_desk_though_it_was_signed(site: Site) -> None:
    """20 rounds of 5 steps at noise 2.84, q = 0.25 cost 3.52 at delta 1e-4, and the plan says 3."""
    plan = site.proposed("rounds=20", "privacy.noise_multiplier=2.84")
    assert "says epsilon 3 and costs 3.52, both at delta 0.0001; unit: " in site.office.study(plan.digest).fault
    site.opened("training")
    site.office.record([site.signed(grant_for(plan, "north"))])
    desk = Desk(site.folder, Switches())
    with pytest.raises(UsageError, match=r"costs 3\.52") as refused:
        desk._hospital(plan.digest)
    assert "another plan of the researcher" in refused.value.hint


def test_the_office_sees_what_the_daemon_wrote_in_the_meantime(site: Site) -> None:
    """Two connections on one file: a charge of the daemon's ledger stands in the office's next answer."""
    plan = site.proposed()
    site.opened("training")
    site.office.record([site.signed(grant_for(plan, "north"))])
    event = plan.round_event("north")
    assert not isinstance(event, Unprotected)
    ledger = site.folder.ledger()
    fact = Reserve(domain="training", block="b" * 8, plan=plan.digest, round_number=1, event=event)
    assert ledger.reserve(fact) is None
    found = site.office.study(plan.digest)
    assert (found.rounds_charged, found.grants[0].used) == (1, 1)


def test_plans_are_listed_newest_first_with_what_an_officers_signature_is_bound_to(site: Site) -> None:
    one, two = site.proposed(*PLAN), site.proposed("rounds=4", PLAN[1])
    found = site.office.studies()
    assert {view.plan.digest for view in found} == {one.digest, two.digest}
    assert [view.received_at for view in found] == sorted((view.received_at for view in found), reverse=True)
    assert {view.ledger_key for view in found} == {site.office.ledger_key} == {site.key}


def test_pause_needs_a_reason_and_the_report_a_plan_that_is_known(site: Site) -> None:
    with pytest.raises(UsageError, match="reason"):
        site.office.pause("  ")
    site.office.pause("backup " + "x" * 300)
    site.office.resume()
    site.office.stop()
    assert [word.split()[0] for word in site.daemon.said] == ["pause", "resume", "stop"]
    assert len(site.daemon.said[0]) == len("pause ") + 200
    plan = site.proposed()
    assert plan.digest in site.office.report(plan.digest)
    with pytest.raises(UsageError, match="no such plan"):
        site.office.report("0" * 64)


def test_a_ledger_that_cannot_be_written_tells_the_daemon_nothing(site: Site) -> None:
    """Another connection holds the file's only write lock, for longer than anybody waits."""
    plan = site.proposed()
    site.opened("training")
    grant = site.signed(grant_for(plan, "north"))
    other = open_store(site.folder.database)
    site.office._desk.submit(lambda: site.office._store.execute("PRAGMA busy_timeout = 50").fetchall()).result()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        site.office.record([grant])
    assert site.daemon.said == []
    other.execute("ROLLBACK")
    other.close()
    site.office.record([grant])
    assert site.daemon.said == [f"let {plan.digest}"]
