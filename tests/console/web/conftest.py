"""A hospital's console for tests: a real folder, ledger and control socket, real logins, and a real browser.

A page's test takes ``world`` (the hospital), ``client_as("officer")`` (logged in through both factors) or ``visit``
(the same in Chromium). The daemon is a stub behind the real office and control server, so that tests say how it stands.
"""

import asyncio
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlencode

import pyarrow.csv
import pyotp
import pytest
import uvicorn
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.testclient import TestClient

from wardround.client.control.server import ControlServer
from wardround.client.daemon import DaemonStatus
from wardround.client.desk import Desk, Switches
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, grant_for, open_domain
from wardround.client.office import Office
from wardround.client.settings import Roles
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members, Part
from wardround.client.store.receipts import Receipts
from wardround.client.store.roster import PinnedRoster
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.indicators import CampaignFile, MadeUp, campaign_plan
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.web.accounts import Accounts
from wardround.console.web.app import make_app
from wardround.console.web.roles import ROLES, Face
from wardround.console.web.security import HEADERS, Names
from wardround.console.web.sessions import COOKIE
from wardround.console.web.store import open_console
from wardround.privacy.meaning import conditions
from wardround.protocol.errors import Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Close, Release, Reserve, Start, Waive, approve
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import FIRST, Receipt, SiteLine
from wardround.server.certificates import own_ca
from wardround.server.conductor import Conductor, Progressing, Wanted
from wardround.server.enrolment import Enrolment
from wardround.server.folder import CoordinatorFolder
from wardround.server.recording import Recorder
from wardround.server.store.checkpoint import write_checkpoint
from wardround.server.store.database import open_database
from wardround.server.store.registry import Registry
from wardround.server.store.sites import Sites
from wardround.server.store.studies import StudyFolder
from wardround.simulations.cohorts import declared_patients
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.datasets import load_dataset
from wardround.simulations.desks import DeskCarrier
from wardround.simulations.indicators import Campaign
from wardround.simulations.made_up_events import MadeUpFeed, made_up

PASSWORD = "four words that nobody guesses"
PORT = 8640
WEAK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Argon2id as weak as the library allows: tests log in often."""

KEPT = ("rounds=20", "privacy.noise_multiplier=2.84", "privacy.epsilon=4")
BROKEN = KEPT[:2]
"""The same plan with the claim that it has by default, epsilon 3: it costs 3.52."""

REASON = "the ethics board of VA has not met, says Doctor Lee"
"""Why a hospital refuses a plan: its coordinator never hears it."""

ANNA = Identity.generate("anna")
"""The officer of each of the coordinator's hospitals."""

HOSTILE = "<script>alert(1)</script> & \u202egnorts\u202c <img src=x onerror=alert(2)> \x1b[2J \u200b" + "W" * 400
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
BROWSER_SECONDS = 90
"""For what a page is to do: a browser on a busy machine is slow, and nothing waits so long that goes right."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Clock:
    """Seconds since the epoch; ``step`` goes on to the next TOTP code, ``later`` by any time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += seconds


def secret_without_zeros(draw: Callable[[], str], now: int) -> str:
    """A TOTP secret of which 000000, the code that tests type for a wrong one, is not right for two hours."""
    while True:
        secret = draw()
        totp = pyotp.TOTP(secret)
        if all(totp.at(now + 30 * step) != "000000" for step in range(-2, 240)):
            return secret


class Daemon:
    """What the office asks of a daemon, remembered; ``change`` says how it stands from now on."""

    def __init__(self, digest: str = "") -> None:
        self.said: list[str] = []
        at = "2026-11-29T08:00:00Z" if digest else ""
        self.now = DaemonStatus(
            "north",
            "running",
            "up",
            "train" if digest else "",
            at,
            digest,
            7 if digest else 0,
            0,
            "1",
            "00",
            1,
            0.0,
            "",
        )

    def change(self, **values: Any) -> None:
        self.now = replace(self.now, **values)

    def status(self) -> DaemonStatus:
        return self.now

    def pause(self, reason: str) -> None:
        self.said.append(f"pause {reason}")
        self.change(state="paused", reason=reason)

    def resume(self) -> None:
        self.said.append("resume")
        self.change(state="running", reason="")

    def stop(self) -> None:
        self.said.append("stop")

    def interrupt(self, plan: str) -> None:
        self.said.append(f"interrupt {plan}")

    def let(self, plan: str) -> None:
        self.said.append(f"let {plan}")

    def report(self, plan: StudyPlan, store: Any) -> str:
        return f'{{"plan": "{plan.digest}"}}'


@lru_cache
def plan_of(*overrides: str, **changes: Any) -> StudyPlan:
    """A plan of the heart disease study at three hospitals; ``changes`` are fields of it, past all checks of text."""
    declared = "+data.declared={east:200,north:200,south:200}"
    settings = overrides or KEPT
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared, *settings])
    made = make_plan(parse_configuration(given), {"east": 200, "north": 200, "south": 200}, date(2026, 11, 20))
    return StudyPlan.model_validate(made.model_dump() | changes) if changes else made


@lru_cache
def campaign_of(
    names: tuple[str, ...] = ("east", "middle", "north", "south", "west"),
    ticks: int = 90,
    on_absence: str = "gap",
    confidence: float = 0.95,
    title: str = "Admissions and beds in the hospitals of the region",
    shared: bool = False,
) -> StudyPlan:
    """A campaign of indicators over days at these hospitals, of which this site, ``north``, is one.

    ``shared``: in mode dist, epsilon 6 of one share and 3 of the h = 3 that five hospitals have; else local, epsilon 3.
    """
    asked = {
        "start": "2026-01-05T00:00:00Z",
        "ticks": ticks,
        "on_absence": on_absence,
        "confidence": confidence,
        "alarm": {"settling": 14, "baseline": 14},
        "indicators": [
            {"name": "admissions", "what": "count", "event": "admission", "contributions": 2},
            {"name": "beds_in_use", "what": "level", "enters": "admission", "leaves": "discharge",
             "contributions": 6, "share": 4},
            {"name": "minutes_waited", "what": "total", "event": "wait", "upper": 120, "unit": "min",
             "contributions": 4},
        ],
    }  # fmt: skip
    given = {
        "study": {
            "name": "live_beds",
            "title": title,
            "purpose": "To see how full the hospitals of the region are, day by day",
            "controllers": [{"name": "Regional health authority", "role": "joint"}],
            "legal_basis": "a statute of the region",
            "ethics_reference": "none needed",
            "recipients": ["the regional health authority"],
            "permitted_use": "Planning of beds and staff; nothing about single patients",
        },
        "hospitals": dict.fromkeys(names, 20000),
        "indicators": asked,
        "privacy": {"mode": "dist", "epsilon": 6, "epsilon_consortium": 3} if shared else {"epsilon": 3},
    }
    return campaign_plan(CampaignFile.model_validate(given), date(2026, 1, 1))


@dataclass
class World:
    """A console's folder with an account for each role, named as the role, and the secrets of their second factors."""

    path: Path
    face: Face
    clock: Clock = field(default_factory=Clock)
    secrets: dict[str, str] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    """What stands for the parameters of a page's path, by name."""

    def make_accounts(self) -> None:
        engine = open_console(self.path)
        accounts = Accounts(engine, self.face, self.clock, WEAK)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                pyotp, "random_base32", partial(secret_without_zeros, pyotp.random_base32, int(self.clock.now))
            )
            self.secrets = {role.value: accounts.add(role.value, role.value, PASSWORD) for role in ROLES[self.face]}
        engine.dispose()

    def app(self, names: Names | None = None, *, tls: bool = True) -> Any:
        return make_app(
            self.path,
            self.face,
            names or Names.of(("127.0.0.1",), PORT, tls=tls),
            tls=tls,
            clock=self.clock,
            hasher=WEAK,
        )

    def code(self, name: str) -> str:
        """The account's next code: the clock goes on first, because each is taken once."""
        self.clock.later(30)
        return self.now(name)

    def now(self, name: str) -> str:
        """The account's code at this moment, whether or not it was taken."""
        return pyotp.TOTP(self.secrets[name]).at(int(self.clock.now))


@dataclass
class SiteWorld(World):
    """A hospital with two officers, its control socket, and the helpers that make its ledger."""

    anna: Identity = field(default_factory=lambda: Identity.generate("anna"))
    ben: Identity = field(default_factory=lambda: Identity.generate("ben"))
    east: Identity = field(default_factory=lambda: Identity.generate("east"))
    coordinator: Identity = field(default_factory=lambda: Identity.generate(COORDINATOR))
    studies: dict[str, str] = field(default_factory=dict)
    """Digests of studies that a test looks for, by its own names."""

    def begin(self) -> None:
        self.folder = SiteFolder.create(self.path, "north", [self.anna.public, self.ben.public])
        self.daemon = Daemon()
        self.office = Office(self.folder, self.daemon)
        self.make_accounts()

    def serve_control(self) -> None:
        self.control = ControlServer(self.path / "control.sock", self.office, Roles(), self.path / "sockets")
        self.control.start()

    def end(self) -> None:
        if hasattr(self, "control"):
            self.control.stop()
        self.office.close()

    def proposed(self, plan: StudyPlan) -> StudyPlan:
        store = open_store(self.folder.database)
        Studies(store).add(plan.canonical)
        store.close()
        return plan

    def signed(self, fact: Any, *officers: Identity) -> bytes:
        for officer in officers or (self.anna,):
            fact = approve(fact, self.folder.identity().public.key.hex(), officer)
        content: bytes = fact.model_dump_json().encode()
        return content

    def numbers(self, kind: type) -> list[int]:
        """Numbers of the ledger's entries of a kind."""
        ledger = self.folder.ledger()
        found = [number for number, fact in enumerate(ledger.facts(), 1) if isinstance(fact, kind)]
        ledger.close()
        return found

    def opened(self, *domains: str) -> None:
        self.office.record([self.signed(open_domain(domain, 8.0, 1e-4)) for domain in domains])

    def granted(self, plan: StudyPlan, *domains: str) -> None:
        self.office.record([self.signed(grant_for(plan, "north", domain)) for domain in domains or ("training",)])

    def receipted(self, plan: StudyPlan, *rounds: int, models: tuple[str, str] | None = None) -> list[Receipt]:
        """Receipts of these rounds, in which east and this hospital answered: signed by all three, and kept.

        ``models``: the hashes of what the round began from and of what came out.
        """
        store, own = open_store(self.folder.database), self.folder.identity()
        today = datetime.now(UTC).date()
        roster = simulated_roster([self.east, own], self.coordinator, (), today)
        pinned = PinnedRoster(store, own.public).held()
        if pinned is None:
            pinned = PinnedRoster(store, own.public).pin(roster.canonical, roster.digest)
        made: list[Receipt] = []
        for number in rounds:
            lines = [
                SiteLine(site=site, outcome="replied", detail="", rounds_asked=number, epsilon_at_most=0.1 * number)
                for site in ("east", "north")
            ]
            before, after = models or (f"{number:064x}", f"{number + 1:064x}")
            receipt = Receipt(
                study=plan.study, plan=plan.digest, roster=pinned.digest, roster_epoch=1, round_number=number,
                attempt=1, at="2026-11-29T08:00:00Z", state="closed", model_before=before,
                model_after=after, sites=tuple(lines), voided_by=(), conditions=conditions(1e-4),
                previous=made[-1].digest if made else FIRST,
            )  # fmt: skip
            made.append(receipt.signed_by(self.coordinator).signed_by(self.east).signed_by(own))
            Receipts(store).keep(made[-1])
        store.close()
        return made

    def ran(self, plan: StudyPlan, rounds: int, domain: str = "training", first: int = 1) -> None:
        """So many rounds of an approved plan, from ``first`` on: charged, started, released."""
        ledger = self.folder.ledger()
        event = grant_for(plan, "north", domain).event
        for number in range(first, first + rounds):
            block = f"{plan.digest[:8]}-{domain}-{number}"
            ledger.record(Reserve(domain=domain, block=block, plan=plan.digest, round_number=number, event=event))
            ledger.record(Start(block=block))
            ledger.record(Release(block=block, attempt=1, content=f"{number:064x}"))
        ledger.close()

    def published(self, plan: StudyPlan, ticks: int, *domains: str) -> None:
        """A campaign that was approved on ``domains``, charged once on each, with so many ticks answered."""
        ledger = self.folder.ledger()
        for domain in domains:
            block, event = f"{plan.digest[:8]}-campaign-{domain}", grant_for(plan, "north", domain).event
            ledger.record(Reserve(domain=domain, block=block, plan=plan.digest, round_number=1, event=event))
            ledger.record(Start(block=block))
            for tick in range(1, ticks + 1):
                ledger.record(Release(block=block, attempt=1, content=f"{tick:064x}", round_number=tick))
        ledger.close()

    def spend(self, plan: StudyPlan, domain: str = "training") -> None:
        """Rounds of an approved plan until the filter admits none."""
        number, event = 0, grant_for(plan, "north", domain).event
        ledger = self.folder.ledger()
        while True:
            number += 1
            block = f"{plan.digest[:8]}-{domain}-{number}"
            fact = Reserve(domain=domain, block=block, plan=plan.digest, round_number=number, event=event)
            if ledger.reserve(fact) is not None:
                break
            ledger.record(Start(block=block))
            ledger.record(Release(block=block, attempt=1, content=f"{number:064x}"))
        ledger.close()

    def end_certificates(self) -> None:
        """The site has joined, and the certificate of the coordinator's authority has ended."""
        pem, _ = own_ca("Hub of the north", datetime.now(UTC) - timedelta(days=4000))
        link = self.path / "link"
        link.mkdir()
        (link / "ca.pem").write_bytes(pem)
        (self.path / "link.json").write_text(json.dumps({"link": str(link)}))


@contextmanager
def site_world(path: Path, *, full: bool, control: bool = True, last: str = HOSTILE) -> Iterator[SiteWorld]:
    """A hospital. ``full``: with budgets, and studies that are running, proposed and refused; else new.

    ``last`` is the title of the last one, which is hostile where nothing else is asked for.
    """
    made = SiteWorld(path / "north", Face.SITE)
    made.begin()
    if full:
        made.opened("training", CONSORTIUM_DOMAIN)
        running = made.proposed(plan_of())
        made.granted(running, "training", CONSORTIUM_DOMAIN)
        made.ran(running, 7)
        made.receipted(running, 1, 2, 3, 4, 5, 6)
        waits = made.proposed(plan_of("rounds=10", "privacy.noise_multiplier=3.5", title="A second look at chest pain"))
        refused = made.proposed(plan_of("rounds=3", "privacy.noise_multiplier=2.84"))
        made.office.refuse(refused.digest, "the ethics reference is missing")
        made.proposed(plan_of("rounds=2", "privacy.noise_multiplier=2.9", title=last))
        made.ran(running, 7, CONSORTIUM_DOMAIN)
        made.daemon = Daemon(running.digest)
        made.office._daemon = made.daemon
        made.examples = {"digest": waits.digest, "domain": "training", "number": "5", "plan": running.digest}
        made.examples |= {"charge": str(made.numbers(Reserve)[0]), "release": str(made.numbers(Release)[0])}
    if control:
        made.serve_control()
    yield made
    made.end()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for a Unix socket."""
    # A request that was cut off may still be closing its database while the folder goes.
    with tempfile.TemporaryDirectory(prefix="wr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shown() -> Iterator[SiteWorld]:
    """A hospital with something on every page. Many tests look at it, so none may change it."""
    with short_folder() as folder, site_world(folder, full=True) as made:
        yield made


@pytest.fixture(scope="session")
def friendly() -> Iterator[SiteWorld]:
    """The same where no stranger means harm: for pictures that people are shown."""
    with short_folder() as folder, site_world(folder, full=True, last="Who comes back within 30 days") as made:
        yield made


@pytest.fixture
def world() -> Iterator[SiteWorld]:
    """A hospital of one's own, with the same in it."""
    with short_folder() as folder, site_world(folder, full=True) as made:
        yield made


@pytest.fixture
def new_world() -> Iterator[SiteWorld]:
    """A hospital of one's own to which nothing has happened yet."""
    with short_folder() as folder, site_world(folder, full=False) as made:
        yield made


class Ended(Exception):
    """The coordinator's process ends here."""


@dataclass
class HubWorld(World):
    """A coordinator whose studies really ran, with four hospitals of this disk behind the real conductor.

    ``finished``: ``va`` was lost in round 2, and ``switzerland`` did not help to open the sum of round 3; ``stuck``:
    three void rounds; ``going``: in its second round; ``proposed``: with a hostile title, two approvals, one refusal.
    """

    plans: dict[str, StudyPlan] = field(default_factory=dict)
    seen: dict[str, Progressing] = field(default_factory=dict)

    def begin(self) -> None:
        self.folder = CoordinatorFolder.create(self.path, "Hub of the north", "hub.example.org", 8443)
        self.registry = Registry(self.folder.database)
        self.make_accounts()

    def place(self, name: str) -> StudyFolder:
        return StudyFolder.of(self.folder.studies, self.plans[name])

    def join(self, hospitals: dict[str, SiteFolder]) -> None:
        today, now = datetime.now(UTC).date(), datetime.now(UTC)
        identities = [hospital.identity() for hospital in hospitals.values()]
        self.roster = simulated_roster(identities, self.folder.identity(), (), today)
        with closing(open_database(self.folder.database)) as store:
            sites = Sites(store)
            sites.put_in_force(self.roster)
            for name, hospital in [*hospitals.items(), ("bern", None)]:
                key = Identity.generate(name) if hospital is None else hospital.identity()
                sites.join(name, key.public.key, node_key(), now)
            sites.revoke("bern", now)
        for number, name in enumerate(hospitals, 7):
            self.registry.registered(name, number)
        Enrolment(self.folder).invite("lyon", 14)
        for hospital in hospitals.values():
            with closing(open_store(hospital.database)) as store:
                PinnedRoster(store, hospital.identity().public).pin(self.roster.canonical, self.roster.digest)

    def conduct(
        self, name: str, plan: StudyPlan, carrier: Any, sleep: Callable[[float], None] = lambda _: None
    ) -> None:
        """Run a study as its process does, from its proposal to its end or to an exception."""
        self.plans[name] = plan
        self.registry.propose(plan)
        place = StudyFolder.create(self.folder.studies, plan)
        wanted = Wanted.PROPOSED if name == "proposed" else Wanted.RUNNING
        self.registry.want(plan.digest, wanted.value)

        def told(seen: Progressing) -> None:
            self.seen[name] = seen
            content = asdict(seen) | {"at": time.time(), "pid": os.getpid()}
            write_checkpoint(place.path / "status.json", json.dumps(content).encode())

        conductor = Conductor(
            place, self.folder.identity(), lambda: self.roster, carrier, lambda: wanted, told, sleep=sleep
        )
        try:
            conductor.run()
            self.registry.ended(plan.digest, "finished", "")
        except Unavailable as error:
            self.registry.ended(plan.digest, "needs_people", error.message)
        except Ended:
            pass


class Losing(DeskCarrier):
    """Loses answers: ``lost`` is asked with the exchange, the site, and the number of the exchange of that kind.

    ``ends``: the coordinator's process ends before this exchange of this number.
    """

    def __init__(
        self, plan: StudyPlan, desks: Any, lost: Any = lambda kind, site, number: False, ends: Any = None
    ) -> None:
        self._counted: Counter[str] = Counter()
        super().__init__(plan.digest, desks, lambda kind, site, _: lost(kind, site, self._counted[kind]))
        self._ends = ends

    def exchange(self, kind: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        self._counted[kind] += 1
        for heard, outcome in enumerate(super().exchange(kind, *arguments, **options)):
            if (kind, self._counted[kind]) == self._ends and heard == 2:
                raise Ended
            yield outcome


def node_key() -> str:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def hospitals_of(path: Path) -> dict[str, SiteFolder]:
    """Four hospitals with the heart disease data and one officer each."""
    made = {}
    for part in load_dataset("heart_disease", "complete").tables:
        folder = made[part.site] = SiteFolder.create(path / part.site, part.site, [ANNA.public])
        (folder.path / "data").mkdir()
        pyarrow.csv.write_csv(part.table, folder.path / "data" / "patients.csv")
        (folder.path / "site.yaml").write_text("data:\n  - {connector: csv, path: data/patients.csv}\n")
        with closing(open_store(folder.database)) as store:
            ids, test = part.table.column("patient").to_pylist(), set(part.test_rows.tolist())
            members = Members(store, folder.patients_key())
            members.enrol([one for row, one in enumerate(ids) if row not in test], TRAINING_DOMAIN, Part.TRAIN)
        grant(folder, [open_domain(TRAINING_DOMAIN, 12.0, 1e-4)])
    return made


def grant(folder: SiteFolder, facts: list[Any]) -> None:
    """What the hospital's officer signs."""
    ledger = folder.ledger()
    for fact in facts:
        ledger.record(approve(fact, folder.identity().public.key.hex(), ANNA))
    ledger.close()


def hub_plan(*overrides: str, **changes: Any) -> StudyPlan:
    """A plan for the four hospitals, of one step a round: it takes no time."""
    wanted = ["study=heart_disease", "privacy.noise_multiplier=2.84", "local.steps=1", *overrides]
    configuration = parse_configuration(compose_configuration(wanted))
    made = make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())
    return StudyPlan.model_validate(made.model_dump() | changes) if changes else made


@dataclass
class CampaignHub(HubWorld):
    """A coordinator of a campaign over made-up events, as far as it has run: its checkpoint, receipts and status."""

    truth: dict[int, Any] = field(default_factory=dict)
    """The table of sums after each tick."""

    def run(self, plan: StudyPlan, ticks: int, away: dict[str, range]) -> None:
        """``ticks`` of the campaign by the project's own code; ``away``: ticks without a hospital."""
        task, place = plan.task, StudyFolder.create(self.folder.studies, plan)
        self.plans["campaign"] = plan
        self.registry.propose(plan)
        self.registry.want(plan.digest, Wanted.RUNNING.value)
        now = task.begins(1)
        about = MadeUp(seed=5, admissions_per_day=40, stay_days=5, surge_from=38, surge=2.5)
        feeds = {
            one.site: MadeUpFeed(made_up(task, about, one.site, number, 20_000), lambda: now)
            for number, one in enumerate(plan.participants)
        }
        ran = Campaign(plan, feeds, reachable=lambda tick, site: tick not in away.get(site, ()))
        today = datetime.now(UTC).date()
        names = [house.identity for house in ran.houses.values()]
        self.roster = simulated_roster(names, self.folder.identity(), (), today)
        with closing(open_database(self.folder.database)) as store:
            Sites(store).put_in_force(self.roster)
        recorder = Recorder(place, self.folder.identity(), lambda: self.roster)
        close, study = ran.study.close_round, ran.study

        def closed(opened: Any) -> Any:
            record = close(opened)
            signed = recorder.record(record, 1)
            for house in ran.houses.values():
                signed = signed.signed_by(house.identity)
            place.keep_receipt(signed)
            return record

        study.close_round = closed
        for tick in range(1, ticks + 1):
            now = task.begins(tick + 1) - timedelta(microseconds=1)
            ran.tick()
            place.keep_progress(study.progress)
            self.truth[tick] = study.progress.state.model.copy()
        self.tell(plan, ticks)

    def tell(self, plan: StudyPlan, done: int) -> None:
        """What the study's process says of itself while it waits for the next tick."""
        standing = {one.site: "approved" for one in plan.participants}
        told = Progressing("running", done + 1, 1, "", plan.rounds, None, standing, {})
        place = StudyFolder.of(self.folder.studies, plan)
        write_checkpoint(place.path / "status.json", json.dumps(asdict(told) | {"at": time.time()}).encode())


@pytest.fixture(scope="session")
def live_hub() -> Iterator[CampaignHub]:
    """A campaign of five hospitals after 48 of its 90 days; north was away for a week, east is since two days.

    Many tests look at it, so none may change it.
    """
    with short_folder() as folder:
        made = CampaignHub(folder / "hub", Face.COORDINATOR)
        made.begin()
        made.run(campaign_of(), 48, {"north": range(20, 27), "east": range(47, 49)})
        made.examples = {"digest": made.plans["campaign"].digest, "name": "plan.json"}
        yield made


@pytest.fixture
def live_copy(live_hub: CampaignHub) -> Iterator[CampaignHub]:
    """The same, of one's own: its folder may be changed."""
    with short_folder() as folder:
        shutil.copytree(live_hub.path, folder / "hub")
        made = replace(live_hub, path=folder / "hub", clock=Clock(), secrets=dict(live_hub.secrets))
        made.clock.now = live_hub.clock.now
        made.folder = CoordinatorFolder.open(made.path)
        made.registry = Registry(made.folder.database)
        made.roster = live_hub.roster
        yield made


@pytest.fixture(scope="session")
def hub() -> Iterator[HubWorld]:
    """A coordinator with studies that really ran. Many tests look at it, so none may change it."""
    with short_folder() as folder:
        made = HubWorld(folder / "hub", Face.COORDINATOR)
        made.begin()
        hospitals = hospitals_of(folder)
        made.join(hospitals)
        desks = {site: Desk(hospital, Switches()) for site, hospital in hospitals.items()}
        plans = {
            "finished": hub_plan("rounds=4"),
            "stuck": hub_plan("rounds=5", attempts=1),
            "going": hub_plan("rounds=6"),
            "proposed": hub_plan("rounds=2", title=HOSTILE),
        }
        for name, plan in plans.items():
            for site in list(hospitals)[:2] if name == "proposed" else hospitals:
                grant(hospitals[site], [grant_for(plan, site, TRAINING_DOMAIN)])

        def dropping(kind: str, site: str, number: int) -> bool:
            return (kind, site, number) in {("train.round", "va", 2), ("query.open", "switzerland", 3)}

        def away(kind: str, site: str, number: int) -> bool:
            return kind == "train.round" and site in ("hungarian", "va")

        def refuse(seconds: float) -> None:
            with closing(open_store(hospitals["va"].database)) as store:
                studies = Studies(store)
                held = studies.get(plans["proposed"].digest)
                studies.refuse(held.digest, REASON)
            if held.refused is not None and made.seen["proposed"].standing.get("va") == "refused":
                raise Ended

        made.conduct("finished", plans["finished"], Losing(plans["finished"], desks, dropping))
        made.conduct("stuck", plans["stuck"], Losing(plans["stuck"], desks, away))
        made.conduct("going", plans["going"], Losing(plans["going"], desks, ends=("train.round", 2)))
        made.conduct("proposed", plans["proposed"], Losing(plans["proposed"], desks), refuse)
        made.examples = {"digest": plans["finished"].digest, "name": "plan.json"}
        yield made


@pytest.fixture
def hub_copy(hub: HubWorld) -> Iterator[HubWorld]:
    """The same coordinator, of one's own: its folder may be changed."""
    with short_folder() as folder:
        shutil.copytree(hub.path, folder / "hub")
        made = replace(hub, path=folder / "hub", clock=Clock(), secrets=dict(hub.secrets))
        made.clock.now = hub.clock.now  # its accounts have taken the codes of that time
        made.folder = CoordinatorFolder.open(made.path)
        made.registry = Registry(made.folder.database)
        made.roster = hub.roster
        yield made


@pytest.fixture
def new_hub() -> Iterator[HubWorld]:
    """A coordinator to which nothing has happened yet."""
    with short_folder() as folder:
        made = HubWorld(folder / "hub", Face.COORDINATOR)
        made.begin()
        yield made


def log_in(client: TestClient, world: World, name: str) -> None:
    """Both steps of the real login."""
    begun = client.post("/login", data={"name": name, "password": PASSWORD, "csrf": csrf(client, "/login")})
    assert begun.url.path == "/login/code", begun.text
    sent = client.post("/login/code", data={"code": world.code(name), "csrf": csrf(client, "/login/code")})
    assert sent.url.path == "/" and sent.status_code == 200, sent.text


def csrf(client: TestClient, path: str = "/") -> str:
    """The token of the forms of a page."""
    text = client.get(path).text
    return text.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def new_client(app: Any) -> TestClient:
    """A browser's stand-in: it sends an origin, as browsers do, and speaks English."""
    headers = {"origin": f"https://127.0.0.1:{PORT}", "sec-fetch-site": "same-origin", "accept-language": "en"}
    return TestClient(app, base_url=f"https://127.0.0.1:{PORT}", headers=headers)


@pytest.fixture
def client_as(world: SiteWorld) -> Iterator[Callable[[str], TestClient]]:
    """A client that is logged in to ``world`` as the account of a role."""
    app = world.app()
    made: list[TestClient] = []

    def client(role: str) -> TestClient:
        made.append(new_client(app))
        log_in(made[-1], world, role)
        return made[-1]

    yield client
    for one in made:
        one.close()


class Served:
    """A console behind uvicorn on a free port of this machine, in a thread."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = world.app(Names.of(("127.0.0.1",), self.port, tls=False), tls=False)
        config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until and self._thread.is_alive(), "the console did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of this machine, driven by Playwright.

    Playwright keeps an event loop running in its thread, in which ``asyncio.run`` then fails: it ends with each file,
    and tests that need a loop of their own stand before the first that asks for a browser.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=BROWSER_SECONDS * 1000)
    program = next(found for name in CHROMIUM if (found := shutil.which(name)))
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()


class Visits:
    """Logged-in windows of the browser: one login for each console and role, and any number of windows after it."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._served: dict[str, Served] = {}
        self._states: dict[tuple[str, str], Any] = {}

    def served(self, world: World) -> Served:
        """The console of ``world``, started when it is first asked for."""
        if str(world.path) not in self._served:
            self._served[str(world.path)] = Served(world)
        return self._served[str(world.path)]

    @contextmanager
    def page(
        self, world: World, role: str | None, *, scheme: str = "light", width: int = 1280, language: str = "en"
    ) -> Iterator[Any]:
        """A window on a console as a role (None: nobody). ``page.faults`` collects what its console complains of."""
        served = self.served(world)
        state = None if role is None else self._state(served, role)
        context = self._browser.new_context(
            base_url=served.url,
            storage_state=state,
            color_scheme=scheme,
            viewport={"width": width, "height": 800},
            locale=language,
            reduced_motion="reduce",
        )
        context.set_default_timeout(BROWSER_SECONDS * 1000)
        window = context.new_page()
        window.faults = []
        window.on("console", lambda said: said.type in ("error", "warning") and window.faults.append(said.text))
        window.on("pageerror", lambda error: window.faults.append(str(error)))
        try:
            yield window
        finally:
            context.close()

    def _state(self, served: Served, role: str) -> Any:
        key = (served.url, role)
        if key not in self._states:
            context = self._browser.new_context(base_url=served.url)
            context.set_default_timeout(BROWSER_SECONDS * 1000)
            window = context.new_page()
            window.goto("/login")
            window.fill("#name", role)
            window.fill("#password", PASSWORD)
            window.click("main button[type=submit] >> nth=0")
            window.wait_for_url("**/login/code")
            window.fill("#code", served.world.code(role))
            window.click("main button[type=submit] >> nth=0")
            window.wait_for_url(f"{served.url}/")
            self._states[key] = context.storage_state()
            context.close()
        return self._states[key]

    def close(self) -> None:
        for served in self._served.values():
            served.stop()


@pytest.fixture(scope="module")
def visits(browser: Any) -> Iterator[Visits]:
    """Windows of the real browser on real consoles."""
    made = Visits(browser)
    yield made
    made.close()


@pytest.fixture(scope="session")
def axe() -> Callable[[Any], list[str]]:
    """A function: what axe-core finds wrong on a page, which must be nothing."""
    return _axe


@pytest.fixture(scope="session")
def screenshot() -> Callable[[Any, str], None]:
    """A function: keep a picture of a page where WARDROUND_SCREENSHOTS names a folder."""
    return _screenshot


@pytest.fixture(scope="module")
def asked() -> Iterator[Callable[[Any, str, str], Any]]:
    """A function: what a page of a console answers somebody of a role; one login for each."""
    made: dict[tuple[str, str], Any] = {}

    def ask(world: Any, path: str, role: str) -> Any:
        if (key := (str(world.path), role)) not in made:
            made[key] = new_client(world.app())
            log_in(made[key], world, role)
        return made[key].get(path)

    yield ask
    for one in made.values():
        one.close()


@pytest.fixture(scope="session")
def text_of() -> Callable[[Any], str]:
    """A function: the words of a page's main part, without those of its pictures."""
    return _text_of


def _text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    main = answer.text.split("<main", 1)[1].split("</main>", 1)[0]
    main = re.sub(r"<svg.*?</svg>", " ", main, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    """What tests of this folder call by name, since they cannot import this file."""
    return SimpleNamespace(
        PASSWORD=PASSWORD, PORT=PORT, HOSTILE=HOSTILE, WEAK=WEAK, Served=Served, csrf=csrf, log_in=log_in,
        new_client=new_client, plan_of=plan_of, REASON=REASON, Asker=Asker, filled=filled,
        missing_headers=missing_headers, World=World, BROKEN=BROKEN, campaign_of=campaign_of, HubWorld=HubWorld,
        short_folder=short_folder, Face=Face, identity=Identity.generate,
    )  # fmt: skip


def _axe(page: Any) -> list[str]:
    """What axe-core finds wrong on a page by WCAG 2.2 A and AA and its best practices: must be empty."""
    from axe_playwright_python.sync_playwright import Axe

    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert len(found["passes"]) > 5, "axe looked at nothing"
    faults = [(one["id"], node) for one in found["violations"] for node in one["nodes"]]
    return [f"{id_}: {node['target']} {node['failureSummary']}" for id_, node in faults]


def _screenshot(page: Any, name: str) -> None:
    """Keep a picture of the page where WARDROUND_SCREENSHOTS names a folder."""
    folder = os.environ.get("WARDROUND_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


HOSTILE_TITLES = {
    "script": HOSTILE,
    "markup": "</title></textarea><svg onload=alert(3)><iframe src=javascript:alert(4)></iframe>\"' onfocus=alert(5)",
    "right to left": "\u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u202e12\u2066 (34) \u200f",
    "long": "T" * 10_000,
    "words": "word " * 2_000,
    "template": "{{7*7}} {% for a in b %} ${7*7} #{7*7} <%= 7*7 %> %(number)s {number}",
    "formula": "=cmd|' /C calc'!A0",
    "control": "a\x00b\x07c\x1b[31md\r\nSet-Cookie: x=1\u2028e\ufeff\U000e0041",
    "marks": "Z" + "\u0301\u0323" * 300,
    "empty": " ",
}
"""Titles that a stranger may give a study, by what they try."""


@contextmanager
def hostile_world(path: Path) -> Iterator[SiteWorld]:
    """A hospital where every text that a stranger may write is hostile; ``studies`` has their digests."""
    with site_world(path, full=True) as made:
        for number, (name, title) in enumerate(HOSTILE_TITLES.items()):
            plan = made.proposed(plan_of(f"rounds={number + 30}", "privacy.noise_multiplier=6.0", title=title))
            made.studies[name] = plan.digest
            if number % 3 == 0:
                made.office.refuse(plan.digest, HOSTILE_TITLES["script"] + HOSTILE_TITLES["right to left"])
        made.daemon.change(last_plan=made.studies["script"], state="paused", reason=HOSTILE_TITLES["markup"])
        yield made


@contextmanager
def alarm_world(path: Path) -> Iterator[SiteWorld]:
    """A hospital where all is wrong at once.

    Paused, cut off, a certificate that has ended, a budget of which no round is left, sums without privacy that
    officers signed, a closed domain, and studies that are revoked and refused.
    """
    with site_world(path, full=True) as made:
        made.opened("imaging", "small")
        spent = made.proposed(plan_of("rounds=500", "privacy.noise_multiplier=2.84", title="Chest pain, every day"))
        made.granted(spent)
        made.spend(spent)
        sums = made.proposed(plan_of("rounds=5", "privacy=none", title="Counts of last year, sums only"))
        reason = "counts that are published anyway"
        waiver = Waive(domain="small", plan=sums.digest, reason=reason)
        made.office.record([made.signed(waiver, made.anna, made.ben)])
        made.granted(sums, "small")
        made.ran(sums, 3, "small")
        close = Close(domain="imaging", reason="the pictures have gone back to the archive")
        made.office.record([made.signed(close, made.anna, made.ben)])
        revoked = made.proposed(plan_of("rounds=8", "privacy.noise_multiplier=3.5", title="A study that was revoked"))
        made.granted(revoked, "training")
        grant = grant_for(revoked, "north", "training")
        made.office.record([made.signed(grant.model_copy(update={"version": 2, "blocks": 0}))])
        made.end_certificates()
        made.daemon.change(state="paused", link="down", reason="the disk is full", refusals=3)
        made.examples |= {"digest": revoked.digest}
        yield made


@pytest.fixture(scope="session")
def alarm() -> Iterator[SiteWorld]:
    """A hospital where all is wrong. Many tests look at it, so none may change it."""
    with short_folder() as folder, alarm_world(folder) as made:
        yield made


@pytest.fixture(scope="session")
def fresh() -> Iterator[SiteWorld]:
    """A hospital to which nothing has happened yet. Many tests look at it, so none may change it."""
    with short_folder() as folder, site_world(folder, full=False) as made:
        yield made


@pytest.fixture(scope="session")
def hostile() -> Iterator[SiteWorld]:
    """A hospital full of hostile texts. Many tests look at it, so none may change it."""
    with short_folder() as folder, hostile_world(folder) as made:
        yield made


@pytest.fixture
def own_hub(hub: World) -> Iterator[World]:
    """The same coordinator, of one's own: forms may be sent to it."""
    with short_folder() as folder:
        shutil.copytree(hub.path, folder / "hub")
        yield replace(hub, path=folder / "hub", secrets=dict(hub.secrets))


@pytest.fixture(scope="session")
def worlds(shown: SiteWorld, hub: World) -> dict[str, World]:
    """A console of each face with something on every page."""
    return {"site": shown, "coordinator": hub}


class Examples(dict[str, str]):
    """What stands for the parameters of a path; one that the world has no example of is 1."""

    def __missing__(self, name: str) -> str:
        return "1"


def filled(path: str, world: World) -> str:
    """A page's path with its parameters filled in from the world's examples."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: Examples(world.examples)[found[1]], path)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application answered; an answer without an end is left after its first bytes."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class Asker:
    """Asks an application as a browser of one account does, without a socket; ``role`` None: nobody is logged in.

    ``pauses``: so many seconds pass before a body comes.
    """

    def __init__(self, app: Any, role: str | None) -> None:
        self.app = app
        self.cookie, self.token = "", "0" * 64
        self.pauses = 0.0
        if role is not None:
            self.begin(role)

    def begin(self, role: str, *, complete: bool = True) -> None:
        """A new session of the account that is named as its role."""
        sessions = self.app.console.sessions
        self.cookie = sessions.begin(role, complete=complete)
        self.token = sessions.find(self.cookie).csrf

    def ask(self, method: str, path: str, body: bytes = b"", *, query: str = "", **headers: str | None) -> Answer:
        """One request; ``headers`` are added, or left out where they are None."""
        own = {
            "host": f"127.0.0.1:{PORT}",
            "origin": f"https://127.0.0.1:{PORT}",
            "sec-fetch-site": "same-origin",
            "accept-language": "en",
            "cookie": f"{COOKIE}={self.cookie}" if self.cookie else None,
            "content-type": "application/x-www-form-urlencoded" if body else None,
            "content-length": str(len(body)) if body else None,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        sent = [(name.encode(), value.encode("utf-8")) for name, value in own.items() if value is not None]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
            "path": unquote(path), "raw_path": path.encode("utf-8"), "query_string": query.encode("utf-8"),
            "root_path": "", "headers": sent, "client": ("127.0.0.1", 4711), "server": ("127.0.0.1", PORT),
        }  # fmt: skip
        return asyncio.run(self._asked(scope, body))

    def send(self, path: str, fields: dict[str, str] | None = None, **headers: str | None) -> Answer:
        """A form with this session's token."""
        return self.ask("POST", path, urlencode({"csrf": self.token} | (fields or {})).encode(), **headers)

    async def _asked(self, scope: dict[str, Any], body: bytes) -> Answer:
        started: dict[str, Any] = {}
        parts: list[bytes] = []
        sent, over = False, asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                await asyncio.sleep(self.pauses)
                return {"type": "http.request", "body": body, "more_body": False}
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                parts.append(message.get("body", b""))
                endless = b"text/event-stream" in dict(started["headers"]).get(b"content-type", b"")
                if endless or not message.get("more_body"):
                    over.set()

        asked = asyncio.ensure_future(self.app(scope, receive, send))
        ended = asyncio.ensure_future(over.wait())
        await asyncio.wait({asked, ended}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({asked}, timeout=5)
        for task in (asked, ended):
            task.cancel()
        await asyncio.gather(asked, ended, return_exceptions=True)
        headers = tuple((name.decode().lower(), value.decode("latin-1")) for name, value in started["headers"])
        return Answer(started["status"], headers, b"".join(parts))


def missing_headers(answer: Any, path: str) -> list[str]:
    """Which of the headers that every answer must carry this one does not, and which it carries and must not."""
    kept = "no-cache" if path.startswith("/static/") else "no-store"
    wanted = HEADERS | {"cache-control": kept, "strict-transport-security": "max-age=31536000"}
    wrong = [f"{name}: {answer[name]}" for name, value in wanted.items() if answer[name] != value]
    wrong += [name for name, _ in answer.headers if name in ("server", "x-powered-by", "access-control-allow-origin")]
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    flags = ("; HttpOnly", "; Path=/", "; SameSite=strict", "; Secure")
    wrong += [cookie.split("=")[0] for cookie in cookies if not all(flag in cookie for flag in flags)]
    wrong += [cookie for cookie in cookies if not cookie.startswith("__Host-") or "Domain" in cookie]
    return wrong + ([] if "unsafe" not in answer["content-security-policy"] else ["unsafe"])
