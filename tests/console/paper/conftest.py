"""A hospital whose ledger tells a story: officers, a witness, a study that ran, refusals; made with the real stores."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for, open_domain
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.paper.as_json import Signed, sign
from wardround.console.paper.gather import Source, audit_report, read_source, statement
from wardround.console.paper.model import Kind
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Grant, Refuse, Release, Reserve, Start, Waive, approve
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.witness import cosign

SITES = ("east", "north", "south", "west")
BEGUN = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
MADE = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)
MODES = {
    "local": ("rounds=15", "privacy.noise_multiplier=2.84"),
    "dist": ("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5"),
    "masks": ("privacy=none", "secagg=on", "rounds=5"),
}


@cache
def _planned(overrides: tuple[str, ...]) -> StudyPlan:
    declared = "+data.declared={" + ",".join(f"{site}:200" for site in SITES) + "}"
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared, *overrides])
    return make_plan(parse_configuration(given), dict.fromkeys(SITES, 200), date(2026, 11, 20))


def plan_of(mode: str = "local", **changes: Any) -> StudyPlan:
    return StudyPlan.model_validate(_planned(MODES[mode]).model_dump() | changes)


@dataclass(slots=True)
class Site:
    """A site with a clock of its own: each entry is a minute after the one before."""

    folder: SiteFolder
    anna: Identity
    ben: Identity
    now: datetime = BEGUN
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = self.folder.ledger(self.clock)

    def clock(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now

    @property
    def identity(self) -> Identity:
        return self.folder.identity()

    def approved(self, fact: Any, *officers: Identity) -> Any:
        for officer in officers or (self.anna,):
            fact = approve(fact, self.identity.public.key.hex(), officer)
        return fact

    def propose(self, plan: StudyPlan) -> None:
        with closing(open_store(self.folder.database)) as store:
            Studies(store).add(plan.canonical)

    def open(self, domain: str = "training", cap: float = 8.0) -> None:
        self.ledger.record(self.approved(open_domain(domain, cap, 1e-4)))

    def grant(self, plan: StudyPlan, domain: str = "training", blocks: int | None = None, version: int = 1) -> None:
        event = charge_for(plan, "north", domain)
        fact = Grant(
            domain=domain, plan=plan.digest, version=version, event=event,
            blocks=plan.rounds if blocks is None else blocks,
        )  # fmt: skip
        self.ledger.record(self.approved(fact))

    def run(self, plan: StudyPlan, first: int, last: int, *domains: str) -> None:
        """Rounds ``first`` to ``last``, each charged, started and released."""
        domains = domains or ("training",)
        for number in range(first, last + 1):
            names = {domain: f"{plan.digest[:16]}/{number:05}/1/{domain}" for domain in domains}
            refused = self.ledger.reserve(
                *(
                    Reserve(
                        domain=domain, block=name, plan=plan.digest, round_number=number,
                        event=charge_for(plan, "north", domain),
                    )
                    for domain, name in names.items()
                )
            )  # fmt: skip
            assert refused is None
            self.ledger.record(*(Start(block=name, opted_out_at_most=10) for name in names.values()))
            self.ledger.record(*(Release(block=n, attempt=1, content=f"{number:064x}") for n in names.values()))

    def refuse(self, plan: StudyPlan, number: int, reason: str = "the site is paused") -> None:
        self.ledger.record(Refuse(plan=plan.digest, round_number=number, reason=reason))

    def witnessed(self, witness: Identity) -> bytes:
        """Have the ledger countersigned as it is; the checkpoint that the witness keeps."""
        note = self.ledger.checkpoint()
        self.ledger.countersign(cosign(note, None, (), self.identity.public, witness), witness.public)
        return note

    def source(self) -> Source:
        return read_source(self.folder)


def make_site(place: Path) -> Site:
    anna, ben = Identity.generate("anna"), Identity.generate("ben")
    return Site(SiteFolder.create(place / "north", "north", [anna.public, ben.public], lambda: BEGUN), anna, ben)


def study_at(site: Site, mode: str = "local", **changes: Any) -> StudyPlan:
    """Propose a study of ``mode``, open what it needs, and approve it."""
    plan = plan_of(mode, **changes)
    site.propose(plan)
    site.open()
    if plan.privacy.mode is PrivacyMode.DIST:
        site.open(CONSORTIUM_DOMAIN)
        site.grant(plan, CONSORTIUM_DOMAIN)
    if plan.privacy.mode is PrivacyMode.NONE:
        reason = "the ethics board accepted sums over four hospitals"
        site.ledger.record(
            site.approved(Waive(domain="training", plan=plan.digest, reason=reason), site.anna, site.ben)
        )
    site.grant(plan)
    return plan


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose officers have approved nothing yet."""
    return make_site(tmp_path)


@pytest.fixture
def witness() -> Identity:
    return Identity.generate("south")


@dataclass(frozen=True, slots=True)
class Story:
    """A site at which a study ran, with what was kept elsewhere on the way."""

    site: Site
    plan: StudyPlan
    witness: Identity
    kept: bytes
    """The checkpoint that the witness holds."""

    def statement(self, kind: Kind = Kind.STATEMENT, language: str = "en") -> Signed:
        source = self.site.source()
        paper = statement(source, self.plan.digest, kind=kind, language=language, clock=lambda: MADE)
        return sign(paper, source.identity)

    def audit(self, former: bytes | None = None, since: date = date(2026, 11, 1), language: str = "en") -> Signed:
        source = self.site.source()
        until = date(2026, 12, 23)
        report = audit_report(source, since, until, former=former, language=language, clock=lambda: MADE)
        return sign(report, source.identity)

    def paper(self, kind: Kind, language: str = "en") -> Signed:
        if kind is Kind.AUDIT:
            return self.audit(self.kept, language=language)
        return self.statement(kind, language)


@pytest.fixture
def story(site: Site, witness: Identity) -> Story:
    """12 of 15 rounds in mode local, three refusals, a witness after round 4; more entries than are listed singly."""
    return tell(site, witness)


@pytest.fixture
def telling(tmp_path: Path, witness: Identity) -> Callable[[str], Story]:
    """The same in another mode."""
    return lambda mode: tell(make_site(tmp_path), witness, mode)


def tell(site: Site, witness: Identity, mode: str = "local") -> Story:
    plan = study_at(site, mode)
    domains = ("training", CONSORTIUM_DOMAIN) if plan.privacy.mode is PrivacyMode.DIST else ("training",)
    last = plan.rounds - (3 if mode == "local" else 0)
    site.run(plan, 1, min(4, last), *domains)
    kept = site.witnessed(witness)
    site.refuse(plan, 5)
    site.refuse(plan, 5)
    site.refuse(plan, 6, "the plan has expired")
    site.run(plan, 5, last, *domains)
    for number in range(40 if mode == "local" else 0):
        site.refuse(plan, number + 7, "the site is paused")
    return Story(site, plan, witness, kept)


@pytest.fixture
def approve_study() -> Callable[..., StudyPlan]:
    return study_at


@pytest.fixture
def planned() -> Callable[..., StudyPlan]:
    return plan_of
