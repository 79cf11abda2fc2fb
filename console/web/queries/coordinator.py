"""What the coordinator's pages show: studies with their rounds, sites, releases. Reads only, and never a site's value.

Everything is a frozen dataclass with closed fields; ``tests/console/web/test_hub_values.py`` walks them against the
list of all that may be shown.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final

from cryptography.x509 import load_pem_x509_certificates

from wardround.console.commands.coordinator import running
from wardround.console.web.queries.alarms import AlarmLine, alarm_line, ordered
from wardround.console.web.queries.campaigns import Campaign, campaign
from wardround.console.web.queries.figures import Figures, figures
from wardround.console.web.queries.hub_links import Links
from wardround.console.web.queries.hub_releases import Release, ReleaseReader
from wardround.console.web.queries.hub_rounds import Cell, ReceiptReader, RoundLine, now_in_round
from wardround.console.web.queries.hub_store import Hub, HubStore, Told
from wardround.console.web.queries.hub_witnesses import WitnessTable, witness_table
from wardround.console.web.queries.tables import TableReader
from wardround.protocol.errors import WardroundError
from wardround.protocol.indicators import Indicators
from wardround.protocol.invitation import key_fingerprint
from wardround.protocol.messages import Standing
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster, under_the_coordinator
from wardround.protocol.statistics import Statistics
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import OVER, RUNNING, STOPPED, StudyRow
from wardround.server.store.studies import StudyFolder
from wardround.server.store.witness import Kept, read_witness

EXPIRY_DAYS: Final = 30
"""So many days before its end a certificate or a roster waits for somebody."""


class State(StrEnum):
    """How a study stands. ``READY``: enough sites have approved it, and nobody has started it."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    NEEDS_PEOPLE = "needs_people"


ENDED: Final = frozenset({State.STOPPED, State.FINISHED})


@dataclass(frozen=True, slots=True)
class SiteStanding:
    """How the plan stands at a site, as it said last; None: it was not heard of. ``must``: no round without it."""

    site: str
    standing: Standing | None
    must: bool


@dataclass(frozen=True, slots=True)
class Current:
    """The round that runs now. ``seconds_left``: of the study, from the rounds so far; ``at``: since 1970."""

    number: int
    attempt: int
    phase: str
    cells: tuple[Cell, ...]
    seconds_left: float | None
    at: float


@dataclass(frozen=True, slots=True)
class HubStudy:
    """A study of the coordinator.

    ``campaign``: it publishes indicators; ``counts``: it is a statistics study. ``trains``, of a study that evaluates a
    model in training, the digest of the training; ``evaluated``, of a training, of the study that evaluates its model:
    each "" where this coordinator has none. ``note``: why it needs people, in the coordinator's words. ``done``: rounds
    that are over, ``void`` of them without a sum. ``epsilon``: what the study may have cost one patient so far, at
    ``delta``. ``fault``: of its receipts.
    """

    digest: str
    study: str
    title: str
    created_at: str
    state: State
    note: str
    rounds: int
    attempts: int
    quorum: int
    secure: bool
    standings: tuple[SiteStanding, ...]
    lines: tuple[RoundLine, ...]
    current: Current | None
    done: int
    void: int
    epsilon: float | None
    delta: float | None
    fault: str
    faulty: str
    released: bool
    campaign: bool
    counts: bool
    trains: str
    evaluated: str

    def names(self, table: str, start: str) -> bool:
        """Whether ``table`` (a hash) is that of the last receipt, or of the one before while that is being written.

        Args:
            start: the hash of what the study starts from.
        """
        known = [line.model for line in self.lines[-2:]]
        return table in (*known, "") or (len(self.lines) < 2 and table == start)

    @property
    def approved(self) -> tuple[str, ...]:
        return tuple(one.site for one in self.standings if one.standing is Standing.APPROVED)

    @property
    def missing(self) -> tuple[str, ...]:
        """The sites whose approval is not there."""
        return tuple(one.site for one in self.standings if one.standing is not Standing.APPROVED)

    @property
    def enough(self) -> bool:
        must = {one.site for one in self.standings if one.must}
        return len(self.approved) >= self.quorum and must <= set(self.approved)

    @property
    def last_at(self) -> str:
        """When the last round ended, "" before the first."""
        return self.lines[-1].at if self.lines else ""


@dataclass(frozen=True, slots=True)
class HubSite:
    """A site: joined, invited, or named in the roster only.

    ``online``: whether its link is up, None: not known. ``answered_at``: its last answer in a round, in ``answered_in``
    (a study's title).
    """

    site: str
    legal_entity: str
    fingerprint: str
    joined_at: datetime | None
    revoked_at: datetime | None
    invited_until: datetime | None
    in_roster: bool
    key_until: date | None
    online: bool | None
    answered_at: str
    answered_in: str
    answered_round: int
    approved: int


@dataclass(frozen=True, slots=True)
class RosterView:
    """The roster in force. ``directed``: sites under the coordinator's own authority."""

    consortium: str
    epoch: int
    issued: date
    expires: date
    days: int
    fingerprint: str
    directed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HubView:
    """The coordinator at one moment. ``certificate_days``: of its public listener; None: it cannot be read.

    ``alarms``: on ledgers, the open ones first.
    """

    name: str
    running: bool
    studies: tuple[HubStudy, ...]
    sites: tuple[HubSite, ...]
    roster: RosterView | None
    certificate_days: int | None
    certificate_until: datetime | None
    alarms: tuple[AlarmLine, ...]

    @property
    def joined(self) -> tuple[HubSite, ...]:
        return tuple(site for site in self.sites if site.joined_at is not None and site.revoked_at is None)


class CoordinatorQueries:
    """Reads one coordinator's folder. May be used from any thread; nothing in it is ever written.

    Args:
        links: who is online now; left out: the SuperLink is asked.
    """

    def __init__(
        self,
        folder: CoordinatorFolder,
        links: Callable[[], frozenset[int] | None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.store = HubStore(folder)
        self._receipts = ReceiptReader()
        self._releases = ReleaseReader()
        self._campaigns = TableReader(campaign)
        self._figures = TableReader(figures)
        self._links = Links(folder) if links is None else links
        self._clock = clock

    def view(self) -> HubView:
        """Everything but who is online. Raises WardroundError when the database cannot be read."""
        return self._view(self.store.read(), None)

    def view_with_links(self) -> HubView:
        """The same, and which sites are online now."""
        return self._view(self.store.read(), self._links())

    def study(self, digest: str) -> HubStudy | None:
        """One study, or None."""
        hub = self.store.read()
        row = next((row for row in hub.studies if row.plan.digest == digest), None)
        return None if row is None else self._study(row, hub)

    def plan(self, digest: str) -> StudyPlan | None:
        return next((row.plan for row in self.store.read().studies if row.plan.digest == digest), None)

    def campaign(self, digest: str) -> Campaign | None:
        """The series of a campaign of indicators; None: there is none. Raises UsageError where it cannot be read."""
        plan = self.plan(digest)
        if plan is None or not isinstance(plan.task, Indicators):
            return None
        return self._campaigns.at_coordinator(self.store.place(plan), plan)

    def figures(self, digest: str) -> Figures | None:
        """The figures of a statistics study; None: it is none. Raises UsageError where they cannot be read."""
        plan = self.plan(digest)
        if plan is None or not isinstance(plan.task, Statistics):
            return None
        return self._figures.at_coordinator(self.store.place(plan), plan)

    def releases(self) -> tuple[Release, ...]:
        """What finished studies have released, the newest first."""
        hub = self.store.read()
        found = [self._release(row, hub) for row in hub.studies if row.state == "finished"]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.at, reverse=True))

    def release(self, digest: str) -> tuple[Release, StudyFolder] | None:
        """The release of one study, and the folder that its files lie in; None: it has none."""
        hub = self.store.read()
        row = next((one for one in hub.studies if one.plan.digest == digest and one.state == "finished"), None)
        found = None if row is None else self._release(row, hub)
        return None if row is None or found is None else (found, self.store.place(row.plan))

    def witnesses(self) -> tuple[WitnessTable, tuple[AlarmLine, ...]]:
        """Who has signed whose ledger, and the alarms, the open ones first."""
        hub, kept = self.store.read(), read_witness(self.folder.witness)
        parties = () if hub.roster is None else hub.roster.parties
        names = {*(one.site for one in hub.sites if one.revoked_at is None), *(party.site for party in parties)}
        rows = sorted(hub.studies, key=lambda row: row.created_at)
        receipts = [
            one for row in rows for one in self._receipts.receipts(self.store.place(row.plan).path, hub.rosters)
        ]
        return witness_table(names, kept, receipts), _alarms(kept)

    def alarm(self, digest: str) -> bytes | None:
        """One alarm with its evidence, in canonical JSON; None: there is no such alarm."""
        kept = read_witness(self.folder.witness)
        return next((one.alarm.canonical for one in kept.alarms if one.alarm.digest == digest), None)

    def today(self) -> date:
        return self._clock().date()

    def warm(self) -> None:
        """Check every receipt before somebody waits for a page; a fault shows on the page."""
        with suppress(WardroundError):
            self.view()

    def _view(self, hub: Hub, online: frozenset[int] | None) -> HubView:
        studies = tuple(self._study(row, hub) for row in hub.studies)
        until = _certificate_until(self.folder)
        return HubView(
            self.folder.about.name,
            running(self.folder),
            studies,
            _sites(hub, studies, online),
            None if hub.roster is None else self._roster(hub.roster),
            None if until is None else (until - self._clock()).days,
            until,
            _alarms(read_witness(self.folder.witness)),
        )

    def _study(self, row: StudyRow, hub: Hub) -> HubStudy:
        plan, told = row.plan, self.store.told(row.plan)
        rounds = self._receipts.rounds(self.store.place(plan).path, plan, hub.rosters)
        said = {} if told is None else told.standing
        standings = tuple(
            SiteStanding(one.site, said.get(one.site), one.site in plan.must_include) for one in plan.participants
        )
        over = {line.number: line for line in rounds.lines if line.closed or line.attempt >= plan.attempts}
        made = HubStudy(
            digest=plan.digest,
            study=plan.study,
            title=plan.title,
            created_at=row.created_at,
            state=State.WAITING,
            note=row.note if row.state == "needs_people" else "",
            rounds=plan.rounds,
            attempts=plan.attempts,
            quorum=plan.quorum,
            secure=plan.privacy.secure_aggregation,
            standings=standings,
            lines=rounds.lines,
            current=None,
            done=len(over),
            void=sum(not line.closed for line in over.values()),
            epsilon=rounds.epsilon,
            delta=plan.privacy.delta,
            fault=rounds.fault,
            faulty=rounds.faulty,
            released=row.state == "finished" and self._releases.there(self.store.place(plan)),
            campaign=isinstance(plan.task, Indicators),
            counts=isinstance(plan.task, Statistics),
            trains=_here(None if plan.follows is None else plan.follows.plan, hub),
            evaluated=_here(None if (phase := plan.evaluation_plan) is None else phase.digest, hub),
        )
        state = _state(row, told, made)
        return replace(made, state=state, current=_current(plan, told) if state is State.RUNNING else None)

    def _roster(self, roster: Roster) -> RosterView:
        return RosterView(
            roster.consortium,
            roster.epoch,
            roster.issued,
            roster.expires,
            (roster.expires - self._clock().date()).days,
            roster.fingerprint,
            under_the_coordinator(roster),
        )

    def _release(self, row: StudyRow, hub: Hub) -> Release | None:
        place = self.store.place(row.plan)
        rounds = self._receipts.rounds(place.path, row.plan, hub.rosters)
        return self._releases.release(place, row.plan, rounds)


def _alarms(kept: Kept) -> tuple[AlarmLine, ...]:
    return ordered(alarm_line(one.alarm, one.since, one.answered, COORDINATOR) for one in kept.alarms)


def _here(digest: str | None, hub: Hub) -> str:
    """``digest``, or "" where this coordinator has no such study."""
    return digest if digest is not None and any(row.plan.digest == digest for row in hub.studies) else ""


def _state(row: StudyRow, told: Told | None, study: HubStudy) -> State:
    if row.state in OVER:
        return State(row.state)
    if row.wanted == STOPPED:
        return State.STOPPING
    if told is not None and told.state in ("running", "finished"):
        return State.RUNNING
    if row.wanted == RUNNING and study.enough:
        return State.RUNNING
    return State.READY if study.enough else State.WAITING


def _current(plan: StudyPlan, told: Told | None) -> Current | None:
    if told is None or told.state != "running":
        return None
    cells = now_in_round(plan, told.sites)
    return Current(told.round_number, told.attempt, told.phase, cells, told.seconds_left, told.at)


def _sites(hub: Hub, studies: tuple[HubStudy, ...], online: frozenset[int] | None) -> tuple[HubSite, ...]:
    joined = {one.site: one for one in hub.sites}
    invited = {one.site: one.expires for one in hub.invitations}
    parties = {} if hub.roster is None else {party.site: party for party in hub.roster.parties}
    answers = _answers(studies)
    found = []
    for name in sorted({*joined, *invited, *parties}):
        site, party = joined.get(name), parties.get(name)
        key = site.identity_key if site is not None else None if party is None else party.identity.key
        at, title, number = answers.get(name, ("", "", 0))
        found.append(
            HubSite(
                site=name,
                legal_entity="" if party is None else party.legal_entity,
                fingerprint="" if key is None else key_fingerprint(key),
                joined_at=None if site is None else site.joined_at,
                revoked_at=None if site is None else site.revoked_at,
                invited_until=invited.get(name),
                in_roster=party is not None,
                key_until=None if party is None else party.valid_until,
                online=_online(None if site is None else site.node_id, online),
                answered_at=at,
                answered_in=title,
                answered_round=number,
                approved=sum(name in study.approved for study in studies),
            )
        )
    return tuple(found)


def _online(node: int | None, online: frozenset[int] | None) -> bool | None:
    return None if node is None or online is None else node % (1 << 64) in online


def _answers(studies: tuple[HubStudy, ...]) -> dict[str, tuple[str, str, int]]:
    """(time, title, round) of each site's last answer in a round: of its vector, whatever became of it."""
    found: dict[str, tuple[str, str, int]] = {}
    for study in studies:
        for line in study.lines:
            for cell in line.cells:
                if cell.part.value in ("in", "unopened", "silent"):
                    found[cell.site] = max(found.get(cell.site, ("", "", 0)), (line.at, study.title, line.number))
    return found


def _certificate_until(folder: CoordinatorFolder) -> datetime | None:
    """When the first of the public listener's chain ends."""
    try:
        chain = load_pem_x509_certificates(folder.certificate.read_bytes())
    except (OSError, ValueError):
        return None
    return min(each.not_valid_after_utc for each in chain)
