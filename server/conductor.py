"""A study at the coordinator, from the proposal to the last receipt, over whatever carries its requests.

Every phase is on disk before the next begins, and a site answers the same request with the same bytes; so a conductor
that was killed is started again on the same folder and goes on in the middle of a round, at no further privacy. Sites
bind to (plan, round, attempt), never to a connection or to Flower's number of a run.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import ProtocolViolation, Unavailable, WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Ask, Finish, Stop, Train
from wardround.protocol.indicators import Indicators
from wardround.protocol.messages import Greeting, Standing
from wardround.protocol.outgoing import Stored, parse_answer
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.carrier import Answered, Carrier, Silent
from wardround.server.exchange import SiteFailed, begin, open_sum, set_up
from wardround.server.greeting import HELLO_SECONDS, Greeter
from wardround.server.recording import Recorder
from wardround.server.rounds import NO_PART, Outcome, Report, Round, RoundState
from wardround.server.store.studies import Attempt, StudyFolder
from wardround.server.study import RoundRecord, Study
from wardround.server.sums import MaskedSum
from wardround.server.timetable import due, over, settling
from wardround.strategies import strategy_for

VOID_ROUNDS_IN_A_ROW: Final = 3
"""After so many void rounds a study stops: more charges would buy nothing."""

SESSION_TICKS: Final = 28
"""Ticks of one session: its set-up exchanges shares for every one of them."""

SESSION_LASTS: Final = timedelta(days=28)
"""How long a session is used; a site gives it up after 30 days."""

SETUP_SECONDS: Final = 60.0
"""How long a set-up waits at least: a hospital that was just started opens its data or feeds first."""

ABSENT: Final = "it did not answer before it was asked"

FAREWELL_SECONDS: Final = 60.0
"""How long the end of a study waits for sites that are away."""

log = logging.getLogger(__name__)


class Wanted(StrEnum):
    """What people want of a study now."""

    PROPOSED = "proposed"
    RUNNING = "running"
    STOPPED = "stopped"


class Stopped(WardroundError):
    """People have stopped the study."""


@dataclass(slots=True)
class Progressing:
    """What people see of a running study."""

    state: str = "proposed"
    round_number: int = 0
    attempt: int = 0
    phase: str = ""
    rounds: int = 0
    seconds_left: float | None = None
    standing: dict[str, str] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    note: str = ""


class Conductor:
    """Runs one study.

    Args:
        roster: gives the roster in force; None: a pilot of one or two hospitals without one.
        wanted: what people want now; asked between and during exchanges, and while a campaign waits for its next tick.
        told: called with what people see, whenever it changes.
        clock: the time of day, UTC, by which the ticks of a campaign are over.
    """

    def __init__(
        self,
        folder: StudyFolder,
        identity: Identity,
        roster: Callable[[], Roster | None],
        carrier: Carrier,
        wanted: Callable[[], Wanted],
        told: Callable[[Progressing], None] = lambda seen: None,
        sleep: Callable[[float], None] = time.sleep,
        installed: Installed = nothing_installed,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.plan: StudyPlan = folder.plan
        self.seen = Progressing(rounds=self.plan.rounds)
        self._identity = identity
        self._roster = roster
        self._carrier = carrier
        self._wanted = wanted
        self._told = told
        self._sleep = sleep
        self._clock = clock
        self._campaign = self.plan.task if isinstance(self.plan.task, Indicators) else None
        self._greeter = Greeter(self.plan, roster, self._exchange)
        self._begun_on = date.min
        self._study = Study(self.plan, strategy_for(self.plan), folder.progress(self.plan), installed)
        self._recorder = Recorder(folder, identity, roster)
        self._unwell: set[str] = set()
        self._begun: set[str] = set()
        self._void_in_a_row = 0
        self._round_seconds: list[float] = []
        self._standing: dict[str, Standing] = {}
        self._greeted_at = 0.0

    @property
    def sites(self) -> list[str]:
        return [participant.site for participant in self.plan.participants]

    def run(self) -> None:
        """From wherever the folder is to the end of the study.

        Raises:
            Stopped: people stopped it; the sites were told.
            Unavailable: it cannot go on without people: too many void rounds, or the run has ended.
        """
        try:
            self._gather()
            self._restore()
            self._keep_model()
            while not self._study.finished:
                self._halt()
                self._take_model()
                self._round()
                self._keep_model()
            self._finish()
        except Stopped:
            self._farewell()
            raise

    def _gather(self) -> None:
        """Propose the plan until enough officers have approved it and people have started the study."""
        delay = 1.0
        while True:
            standing = self._greet(propose=True)
            approved = {site for site, word in standing.items() if word is Standing.APPROVED}
            enough = len(approved) >= self.plan.quorum and set(self.plan.must_include) <= approved
            if self._wanted() is Wanted.RUNNING and enough:
                return
            self._show(state="proposed" if self._wanted() is Wanted.PROPOSED else "waiting for approvals")
            for _ in range(int(delay * 4)):
                self._halt()
                self._sleep(0.25)
            delay = min(delay * 1.5, 20.0)

    def _greet(self, propose: bool = False) -> dict[str, Standing]:
        """How the plan stands at each site; sites that did not answer are not in it."""
        greetings = self._greeter.greet(propose)
        self._session_lost(greetings)
        self._standing = {site: greeting.standing for site, greeting in greetings.items()}
        self._show(standing={site: word.value for site, word in self._standing.items()})
        self._greeted_at = time.monotonic()
        return self._standing

    def _session_lost(self, greetings: Mapping[str, Greeting]) -> None:
        """A site that may take part and holds no session, or another, ends this one: it was restarted, or is new."""
        desk = self._study.desk
        able = (greeting for greeting in greetings.values() if greeting.standing is Standing.APPROVED)
        if desk is not None and any(greeting.session != desk.session.digest for greeting in able):
            self._study.desk = None

    def _restore(self) -> None:
        """The session that is on disk, if every site still holds it."""
        kept = self.folder.session(self._identity) if self.plan.privacy.secure_aggregation else None
        if kept is not None and self._study.desk is None:
            self._study.desk, self._begun_on = kept
            self._greet()

    def _session_over(self, number: int) -> bool:
        """Whether round ``number`` needs a new session: there is none, or the sites would use it no more."""
        desk = self._study.desk
        return desk is None or number not in desk.session.rounds or self._today() - self._begun_on >= SESSION_LASTS

    def _join(self, number: int) -> bool:
        """A session for tick ``number`` among the sites that are there now; False: too few are."""
        self._greet()
        if self._session_over(number):
            return self._set_up(wait=False)
        here = {site for site, word in self._standing.items() if word is Standing.APPROVED}
        return len(here) >= self.plan.quorum

    def _set_up(self, wait: bool = True) -> bool:
        """A session among the sites that answer, for the rounds that are left; a site that fails is left out.

        ``wait``: for as many as the plan needs. Returns whether there is a session.
        """
        roster = self._roster()
        if roster is None:
            raise Unavailable("there is no roster, and secure aggregation needs one", "sign one: docs/roster.md")
        left_out: set[str] = set()
        self._study.desk = None
        while True:
            self._halt()
            self._show(phase="setting up secure aggregation")
            fresh = time.monotonic() - self._greeted_at < HELLO_SECONDS and not left_out
            standing = self._standing if fresh else self._greet()
            self._greeted_at = 0.0
            able = [s for s, word in standing.items() if word is Standing.APPROVED and s not in left_out]
            if len(able) < self.plan.quorum:
                self._note(f"{len(able)} of {self.plan.quorum} sites that are needed answer")
                if not wait:
                    return False
                self._sleep(3.0)
                left_out.clear()
                continue
            try:
                self._study.desk = self._session(roster, able)
            except (SiteFailed, ProtocolViolation) as error:
                log.warning("set-up failed site=%s reason=%r", error.site, error.message)
                left_out.add(error.site)
                continue
            self._begun_on = self._today()
            self.folder.keep_session(self._study.desk, self._begun_on)
            self._begun.clear()
            return True

    def _session(self, roster: Roster, able: Sequence[str]) -> SetupDesk:
        first, last = self._study.progress.rounds_done + 1, self.plan.rounds
        if self._campaign is not None:
            last = min(last, first + SESSION_TICKS - 1)
        return set_up(
            self.plan,
            roster,
            self._identity,
            partial(self._asking, at_least=SETUP_SECONDS),
            able,
            name=f"{self.plan.digest[:16]}/{self.folder.next_session()}",
            length=self._study.vector_length,
            rounds=range(first, last + 1),
            today=self._today(),
            attempts=self.plan.attempts,
        )

    def _asking(
        self, kind: str, asks: Mapping[str, Ask], at_least: float = 0.0
    ) -> Iterator[tuple[str, bytes | Stored | WardroundError]]:
        """One request to each site, as ``server.exchange`` asks."""
        seconds = max(self.plan.deadline_seconds, at_least)
        for outcome in self._exchange(kind, {site: [ask] for site, ask in asks.items()}, seconds):
            if isinstance(outcome, Answered) and len(outcome.answers) == 1:
                yield outcome.site, outcome.answers[0]
            else:
                reason = outcome.reason if not isinstance(outcome, Answered) else "it gave another number of answers"
                yield outcome.site, Unavailable(reason, "see the site's log")

    def _keep_model(self) -> None:
        """Keep the model of a round that is evaluated: after the round is over, and before the next one opens."""
        done, phase = self._study.progress.rounds_done, self.plan.evaluation
        if phase is not None and done in phase.rounds:
            self.folder.keep_in_training(done, self._study.progress.state.model)

    def _take_model(self) -> None:
        """In a study that follows a training: the model that is evaluated next, once its round is over."""
        if (follows := self.plan.follows) is None:
            return
        number, waited = follows.rounds[self._study.progress.rounds_done], False
        while (model := self.folder.in_training(follows.plan, number)) is None:
            self._halt()
            self._show(state="running", phase=f"waiting for round {number} of the training")
            waited = True
            self._sleep(1.0)
        self._study.in_training = model
        if waited:
            self._greet()  # A site that was started anew in the meantime has lost its session.

    def _round(self) -> None:
        """The next round: attempts until one has its sum, or none is left."""
        kept, number = self.folder.attempt(), self._study.progress.rounds_done + 1
        attempt = kept.attempt if kept is not None and kept.round_number == number else 1
        while True:
            there = self._campaign is None or self._tick(self._campaign, number, attempt)
            started = time.monotonic()
            if there:
                opened = self._attempt(number, attempt, kept)
                last = opened.state is RoundState.CLOSED or attempt >= self.plan.attempts
                record = self._study.close_round(opened) if last else self._study.void_record(opened)
                self._unwell = {s for s, r in opened.reports.items() if r.outcome is not Outcome.REPLIED}
                self._unwell |= opened.silent
                del opened  # and with it the model that the round began with, before the next one is written down
            else:
                last = attempt >= self.plan.attempts
                record = self._unasked(number)
                if last:
                    self._study.leave_out()
            kept = None
            self._recorder.record(record, attempt)
            self.folder.drop_sum()
            if last:
                self.folder.keep_progress(self._study.progress)
                self._round_seconds.append(time.monotonic() - started)
                self._settled(record)
                return
            attempt += 1
            self.folder.keep_attempt(Attempt(number, attempt, "asked", {}))
            self._note(f"round {number} was void; attempt {attempt}")
            if self._campaign is None:
                self._sleep(min(2.0 * attempt, 20.0))

    def _tick(self, campaign: Indicators, number: int, attempt: int) -> bool:
        """Wait until an attempt at tick ``number`` is due; whether enough hospitals are there to be asked.

        Under secure aggregation they are greeted before: who was restarted, or is back, joins a session first, so that
        no tick is lost to that.
        """
        at = due(campaign, number, attempt, self.plan.attempts)
        waits = {"phase": "", "note": f"tick {number} is asked at {at:%Y-%m-%d %H:%M:%S} UTC"}
        self._show(state="running", round_number=number, attempt=attempt, **waits)
        self._wait(at - settling(campaign))
        there = not self.plan.privacy.secure_aggregation or self._join(number)
        self._show(**waits)
        self._wait(at)
        self._show(note="")
        return there

    def _wait(self, moment: datetime) -> None:
        """Until the clock says ``moment``, a stop being heard meanwhile."""
        while (left := (moment - self._clock()).total_seconds()) > 0:
            self._halt()
            self._sleep(min(left, 1.0))

    def _unasked(self, number: int) -> RoundRecord:
        """A tick for which there is no session: who did not answer the greeting, and what stands in others' way."""
        reports = {site: Report(Outcome.LOST, self._unasked_for(site)) for site in self.sites}
        before = model_hash(self._study.progress.state.model)
        absent = tuple(site for site in self.sites if self._standing.get(site) is not Standing.APPROVED)
        return RoundRecord(number, RoundState.VOID, reports, before, before, absent)

    def _attempt(self, number: int, attempt: int, kept: Attempt | None) -> Round:
        if self.plan.privacy.secure_aggregation:
            if self._campaign is None and self._unwell and self._study.desk is not None:
                self._greet()
                self._unwell = set()
            if self._session_over(number):
                self._set_up()
                kept = None
        among = self._among(number, attempt, kept)
        opened = self._study.open_round(time.monotonic(), attempt, among)
        sums = opened.sums
        summed = (
            kept is not None
            and kept.phase == "summed"
            and isinstance(sums, MaskedSum)
            and self.folder.restore_sum(sums.desk)
        )
        session = "" if self._study.desk is None else self._study.desk.session.digest
        self._show(state="running", round_number=number, attempt=attempt, phase="training")
        if summed and kept is not None and isinstance(sums, MaskedSum):
            sums.restored()
            opened.restore({site: Report(Outcome(word), text) for site, (word, text) in kept.reports.items()})
        else:
            self.folder.keep_attempt(Attempt(number, attempt, "asked", {}, session, among))
            self._ask_for_vectors(opened)
        opened.settle(time.monotonic())
        if opened.state is RoundState.CLOSED and isinstance(sums, MaskedSum):
            if not summed:
                self.folder.keep_sum(sums.desk)
                reports = {site: (r.outcome.value, r.detail) for site, r in opened.reports.items()}
                self.folder.keep_attempt(Attempt(number, attempt, "summed", reports, session, among))
            self._show(phase="opening the sum")
            open_sum(opened, self._asking)
        return opened

    def _among(self, number: int, attempt: int, kept: Attempt | None) -> tuple[str, ...]:
        """Whom of the session a tick is proposed to: who answered its greeting, if they are enough; none: everybody.

        So a tick has its sum in two exchanges while a hospital is away, which three would take that count on it. An
        attempt that began before the coordinator was restarted is proposed as it was.
        """
        desk = self._study.desk
        if self._campaign is None or desk is None:
            return ()
        slot = number, attempt, desk.session.digest
        if kept is not None and (kept.round_number, kept.attempt, kept.session) == slot:
            return kept.among
        here = tuple(site for site in desk.sites if self._standing.get(site) is Standing.APPROVED)
        return here if len(here) >= desk.session.threshold else ()

    def _ask_for_vectors(self, opened: Round) -> None:
        sums, desk = opened.sums, self._study.desk
        proposal = sums.desk.proposal if isinstance(sums, MaskedSum) else None
        train = Train(opened.request, proposal)
        sites = self.sites if proposal is None else list(proposal.participants)
        if proposal is not None and self._campaign is not None:
            sites = [site for site in sites if site in self._standing]
        asks: dict[str, list[Ask]] = {}
        for site in sites:
            starting = [begin(self.plan, desk)] if isinstance(desk, SetupDesk) and site not in self._begun else []
            asks[site] = [*self._recorder.beside(site), *starting, train]
        for site in set(self.sites) - set(sites):
            opened.lost(site, time.monotonic(), self._unasked_for(site))
        for outcome in self._exchange("train.round", asks, self.plan.deadline_seconds):
            site, now = outcome.site, time.monotonic()
            if not isinstance(outcome, Answered):
                opened.lost(site, now, outcome.reason)
            elif len(outcome.answers) != len(asks[site]):
                opened.lost(site, now, "it gave another number of answers than there were requests")
            else:
                self._begun.add(site)
                self._recorder.take(site, asks[site], outcome.answers)
                try:
                    opened.receive(parse_answer(outcome.answers[-1], site), now)
                except ProtocolViolation as error:
                    opened.lost(site, now, error.message)
            self._show(sites={s: r.outcome.value for s, r in opened.reports.items()})

    def _unasked_for(self, site: str) -> str:
        """Why a site is not asked for a vector; in a study of rounds who is in the session is."""
        word = self._standing.get(site)
        if self._campaign is None or word is Standing.APPROVED:
            return NO_PART
        return ABSENT if word is None else word.value

    def _settled(self, record: RoundRecord) -> None:
        if self._campaign is not None:
            # A void tick costs nobody a charge, so whoever is away is a gap and stops nobody.
            self.folder.keep_model(self.plan, self._study.progress.state.model)
            ends = over(self._campaign, self.plan.rounds)
            self._show(seconds_left=max(0.0, (ends - self._clock()).total_seconds()))
            return
        self._void_in_a_row = self._void_in_a_row + 1 if record.state is RoundState.VOID else 0
        recent = self._round_seconds[-10:]
        self._show(seconds_left=sum(recent) / len(recent) * (self.plan.rounds - record.round_number))
        if self._study.stopped_by and not self._study.finished:
            raise Unavailable(
                f"three rounds were void through {' and '.join(self._study.stopped_by)}; the study has stopped",
                "each cost the other sites a charge for nothing: mend the site, or plan the study without it",
            )
        if self._void_in_a_row >= VOID_ROUNDS_IN_A_ROW:
            missing = ", ".join(s for s, r in record.reports.items() if r.outcome != "replied")
            raise Unavailable(
                f"{VOID_ROUNDS_IN_A_ROW} rounds in a row were void; missing in round {record.round_number}: {missing}",
                "bring the sites back, then 'wardround study resume'",
            )

    def _finish(self) -> None:
        """Write the model, give it to every site with the last receipt to sign, and heads of ledgers to witnesses."""
        model = self._study.progress.state.model
        self.folder.keep_model(self.plan, model)
        self._show(phase="handing out the model")
        finish = Finish(self.plan.digest, model_hash(model), model)
        asks: dict[str, list[Ask]] = {site: [*self._recorder.beside(site), finish] for site in self.sites}
        for outcome in self._exchange("query.finish", asks, FAREWELL_SECONDS):
            if isinstance(outcome, Answered):
                self._recorder.take(outcome.site, asks[outcome.site], outcome.answers)
            else:
                self._note(f"{outcome.site} has not got the model yet: {outcome.reason}")
        left = {site: beside for site in self.sites if (beside := self._recorder.beside(site))}
        for outcome in self._exchange("query.receipt", left, HELLO_SECONDS):
            if isinstance(outcome, Answered):
                self._recorder.take(outcome.site, left[outcome.site], outcome.answers)
        self._show(state="finished", phase="", seconds_left=0.0)

    def _farewell(self) -> None:
        """Tell sites that are not busy that the study was stopped; the others hear it from Flower."""
        stop: list[Ask] = [Stop(self.plan.digest)]
        for outcome in self._carrier.exchange("query.stop", dict.fromkeys(self.sites, stop), 10.0):
            log.info("told of the stop site=%s", outcome.site)
        self._show(state="stopped", phase="")

    def _exchange(self, kind: str, asks: Mapping[str, Sequence[Ask]], seconds: float) -> Iterator[Answered | Silent]:
        if asks:
            yield from self._carrier.exchange(kind, asks, seconds, lambda: self._wanted() is Wanted.STOPPED)
        self._halt()

    def _today(self) -> date:
        return self._clock().date()

    def _halt(self) -> None:
        if self._wanted() is Wanted.STOPPED:
            raise Stopped("the study was stopped", "wardround study resume goes on where it was")

    def _note(self, text: str) -> None:
        log.info("study=%s note=%r", self.plan.study, text)
        self._show(note=text)

    def _show(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.seen, name, value)
        self._told(self.seen)
