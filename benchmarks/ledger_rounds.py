"""Real site folders and desks, and the real recorder of a coordinator, with rounds that only write to ledgers.

No model is trained: each hospital reserves, starts and releases a block as a round does, and then receipts, heads and
bulletins travel beside the exchange as they always do. A round takes hundredths of a second, so hundreds can be played.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from wardround.client.desk import Desk, Switches
from wardround.client.governance import TRAINING_DOMAIN, grant_for, open_domain
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.roster import PinnedRoster
from wardround.privacy.budget import delta_for
from wardround.protocol.alarm import Alarm, AlarmKind
from wardround.protocol.bulletin import parse_bulletin
from wardround.protocol.entry import next_entry
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Ask, Cosign, Follow, Gossip, ask_bytes
from wardround.protocol.ledger import Refuse, Release, Reserve, Start, Waive, approve
from wardround.protocol.messages import Gossiped, Signed
from wardround.protocol.outgoing import bytes_to_send, is_answer, parse_step
from wardround.protocol.owners import COORDINATOR, Governance, Owner, Party
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.recording import Recorder
from wardround.server.rounds import Outcome, Report, RoundState
from wardround.server.store.studies import StudyFolder
from wardround.server.study import RoundRecord

ANNA, BEN = Identity.generate("anna"), Identity.generate("ben")
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def roster_of(identities: Iterable[Identity], coordinator: Identity, previous: Roster | None = None) -> Roster:
    """The next roster with these sites, signed by anna."""
    today = date.today()
    parties = tuple(
        Party(
            site=one.site,
            legal_entity=f"hospital {one.site}",
            controlling_authority=f"hospital {one.site}",
            key=one.public.key.hex(),
            valid_from=today,
            valid_until=today + timedelta(days=300),
        )
        for one in sorted(identities, key=lambda one: one.site)
    )
    return Roster(
        consortium="test",
        epoch=1 if previous is None else previous.epoch + 1,
        previous=None if previous is None else previous.digest,
        issued=today,
        expires=today + timedelta(days=300),
        coordinator=Owner(legal_entity="hub", controlling_authority="hub", key=coordinator.public.key.hex()),
        parties=parties,
        governance=Governance(m=1, keys={"anna": ANNA.public.key.hex()}),
    ).signed_by(ANNA)


def approve_everywhere(folder: SiteFolder, plan: StudyPlan) -> None:
    """What the officers sign for a plan without differential privacy: a budget, a waiver, a grant."""
    ledger, key = folder.ledger(), folder.identity().public.key.hex()
    for fact in (
        open_domain(TRAINING_DOMAIN, 12.0, delta_for(plan.declared_patients(folder.site))),
        Waive(domain=TRAINING_DOMAIN, plan=plan.digest, reason="no patients: these rounds train nothing"),
        grant_for(plan, folder.site, TRAINING_DOMAIN, plan.attempts),
    ):
        ledger.record(approve(approve(fact, key, ANNA), key, BEN))
    ledger.close()


class Ledgers:
    """A coordinator and hospitals. ``clock`` is a minute later each round."""

    def __init__(self, path: Path, plan: StudyPlan) -> None:
        self.path, self.plan = path, plan
        self.number, self.clock = 0, START
        self.folders: dict[str, SiteFolder] = {}
        path.mkdir(parents=True, exist_ok=True)
        self.coordinator, self.studies = self.place()
        for participant in plan.participants:
            site = participant.site
            self.folders[site] = SiteFolder.create(path / site, site, [ANNA.public, BEN.public])
            (self.folders[site].path / "site.yaml").write_text("data: []\n")
        self.roster = roster_of([folder.identity() for folder in self.folders.values()], self.coordinator)
        for folder in self.folders.values():
            store = open_store(folder.database)
            PinnedRoster(store, folder.identity().public).pin(self.roster.canonical, self.roster.digest)
            store.close()
            approve_everywhere(folder, plan)
        self.desks = {site: self.desk(site) for site in self.folders}
        self.start_recorder()

    def place(self) -> tuple[Identity, Path]:
        """The coordinator, and the folder of its studies."""
        return Identity.generate(COORDINATOR), self.path / "hub"

    def start_recorder(self) -> None:
        """As after a restart of the coordinator's process."""
        folder = StudyFolder.create(self.studies, self.plan)
        self.recorder = Recorder(folder, self.coordinator, lambda: self.roster)

    def desk(self, site: str) -> Desk:
        return Desk(self.folders[site], Switches(), clock=lambda: self.clock)

    def restart(self, site: str) -> None:
        self.desks[site].ledger.close()
        self.desks[site] = self.desk(site)

    def work(self, desk: Desk) -> str:
        """What a round writes to a ledger; the outcome that the coordinator sees."""
        grant = next(grant.fact for (of, _), grant in desk.ledger.state.grants.items() if of == self.plan.digest)
        block = f"{self.plan.digest[:16]}/{self.number:05d}/1/{grant.domain}"
        about = {"plan": self.plan.digest, "round_number": self.number, "event": grant.event}
        if desk.ledger.reserve(Reserve(domain=grant.domain, block=block, **about)) is not None:
            return "refused"
        desk.ledger.record(Start(block=block))
        desk.ledger.record(Release(block=block, attempt=1, content="ab" * 32))
        return "replied"

    def round(self, away: Sequence[str] = (), lost: Callable[[str], bool] = lambda site: False) -> dict[str, str]:
        """One round: ``away`` hospitals are offline; ``lost(site)``: its answer does not arrive, though it was made."""
        self.number += 1
        self.clock += timedelta(minutes=1)
        there = [site for site in self.desks if site not in away]
        for site in there:
            self.exchange(site, lost(site))
        reports = {site: self.work(self.desks[site]) if site in there else "lost" for site in self.folders}
        self.recorder.record(
            RoundRecord(
                self.number,
                RoundState.CLOSED,
                {site: Report(Outcome(word), "") for site, word in reports.items()},
                f"{self.number - 1:064x}" if self.number > 1 else f"{0:064x}",
                f"{self.number:064x}",
            ),
            1,
        )
        return reports

    def exchange(self, site: str, lost: bool = False) -> None:
        """What goes beside a request, there and back."""
        asks = self.recorder.beside(site)
        answers = self.answers(self.desks[site], asks)
        if not lost:
            self.recorder.take(site, asks, answers)

    def answers(self, desk: Desk, asks: Sequence[Ask]) -> list[bytes]:
        requests = [b"".join(bytes(part) for part in ask_bytes(ask)) for ask in asks]
        return [bytes_to_send(one) for one in desk.answer("query.receipt", self.plan.digest, requests)] if asks else []

    def alarms(self, site: str) -> list[Alarm]:
        """The open alarms at a hospital, or at the coordinator."""
        watch = self.recorder.watch if site == COORDINATOR else self.desks[site].gossip.watch
        return watch.open_alarms()

    def accused(self, site: str) -> set[tuple[AlarmKind, str]]:
        return {(alarm.kind, alarm.origin) for alarm in self.alarms(site)}

    def everybody_but(self, *names: str) -> list[str]:
        return [site for site in (*self.folders, COORDINATOR) if site not in names]

    def rounds_until(self, true: Callable[[], bool], most: int, **options: Any) -> int:
        """Rounds that are played until it is true; fails after ``most``."""
        for count in range(most):
            if true():
                return count
            self.round(**options)
        assert true(), f"not within {most} rounds: " + str({site: self.accused(site) for site in self.everybody_but()})
        return most

    def follow(self, roster: Roster) -> None:
        """Every hospital goes over to the next roster."""
        self.roster = roster
        for desk in self.desks.values():
            self.answers(desk, [Follow(roster.canonical.decode())])

    def snapshot(self, site: str) -> Path:
        """The site's database as it is now, as a snapshot of its machine holds it."""
        self.desks[site].ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        kept = self.path / f"{site}-{self.number}.snapshot"
        kept.write_bytes(self.folders[site].database.read_bytes())
        return kept

    def put_back(self, site: str, kept: Path) -> None:
        """The machine goes back to the snapshot; its daemon is started on it."""
        self.desks[site].ledger.close()
        for file in self.folders[site].database.parent.glob("ledger.sqlite*"):
            file.unlink()
        self.folders[site].database.write_bytes(kept.read_bytes())
        self.desks[site] = self.desk(site)


def rewrite(folder: SiteFolder, dropped: int) -> None:
    """Leave entry ``dropped`` out of a ledger, and chain and sign everything after it anew: the site's own key can."""
    store = sqlite3.connect(folder.database, isolation_level=None)
    rows = store.execute("SELECT number, content FROM entries ORDER BY number").fetchall()
    store.execute("DROP TRIGGER entries_are_never_changed")
    store.execute("DROP TRIGGER entries_are_never_removed")
    store.execute("DELETE FROM entries")
    last = None
    for number, content in rows:
        if number != dropped:
            last = next_entry(last, bytes(content), folder.identity())
            row = (folder.site, last.number, last.content, last.signature, last.hash)
            store.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    store.close()


def hostile(desk: Desk) -> Desk:
    """A hospital that looks away when others show it that its ledger is another one."""
    desk.ledger.rolled_back = lambda seen, witness: False  # type: ignore[method-assign]
    return desk


class TwoFaces(Ledgers):
    """From ``split`` on the coordinator and ``liar`` show one history of the liar's ledger to some, another to
    others.
    """

    liar: str = ""
    other: Desk | None = None
    fooled: frozenset[str] = frozenset()

    def split(self, liar: str, fooled: Iterable[str]) -> None:
        copy = self.path / "second"
        copy.mkdir()
        kept = self.snapshot(liar)
        folder = self._copied(liar, copy, kept)
        self.liar, self.fooled = liar, frozenset(fooled)
        self.other = hostile(Desk(folder, Switches(), clock=lambda: self.clock))
        hostile(self.desks[liar])
        self._said: dict[str, Any] = {}

    def _copied(self, liar: str, copy: Path, kept: Path) -> SiteFolder:
        shutil.copytree(self.folders[liar].path, copy / liar)
        for file in (copy / liar).glob("ledger.sqlite*"):
            file.unlink()
        (copy / liar / "ledger.sqlite").write_bytes(kept.read_bytes())
        return SiteFolder.open(copy / liar)

    def work(self, desk: Desk) -> str:
        if self.other is not None and desk is self.desks[self.liar]:
            super().work(self.other)
            self.other.ledger.record(Refuse(plan=self.plan.digest, round_number=self.number, reason="another history"))
        return super().work(desk)

    def answers(self, desk: Desk, asks: Sequence[Ask]) -> list[bytes]:
        if self.other is None:
            return super().answers(desk, asks)
        if desk is self.desks[self.liar]:
            for content in super().answers(self.other, asks):
                if not is_answer(content, self.liar) and isinstance(
                    found := parse_step(content, self.liar)[0], Signed | Gossiped
                ):
                    self._said[type(found).__name__] = found
        elif desk.folder.site in self.fooled:
            asks = [self._turned(ask, desk.folder.site) for ask in asks]
        return super().answers(desk, asks)

    def _turned(self, ask: Ask, site: str) -> Ask:
        """The request with the second history in the place of the first."""
        if isinstance(ask, Gossip) and "Gossiped" in self._said:
            mine = self._said["Gossiped"].bulletin
            about = [parse_bulletin(text.encode(), self.liar).statement.site for text in ask.bulletins]
            return Gossip(
                tuple(mine if of == self.liar else text for of, text in zip(about, ask.bulletins, strict=True))
            )
        if isinstance(ask, Cosign) and ask.origin == self.liar and "Signed" in self._said:
            signed = self._said["Signed"]
            return Cosign(self.liar, signed.checkpoint, dict(signed.proofs).get(site, ()))
        return ask
