"""A study at the coordinator, from the proposal to the last receipt, over whatever carries its requests.

Every phase is on disk before the next begins, and a site answers the same request with the same bytes; so a conductor
that was killed is started again on the same folder and goes on in the middle of a round, at no further privacy. Sites
bind to (plan, round, attempt), never to a connection or to Flower's number of a run.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final

from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import ProtocolViolation, Unavailable, WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Ask, Finish, Follow, Heads, Hello, Propose, Recall, Stop, Train
from wardround.protocol.messages import Greeting, Recalled, Standing
from wardround.protocol.outgoing import Stored, parse_answer
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.carrier import Answered, Carrier, Silent
from wardround.server.exchange import SiteFailed, begin, open_sum, said, set_up
from wardround.server.recording import Recorder
from wardround.server.rounds import NO_PART, Outcome, Report, Round, RoundState
from wardround.server.store.studies import Attempt, StudyFolder
from wardround.server.study import RoundRecord, Study
from wardround.server.sums import MaskedSum
from wardround.strategies import strategy_for

VOID_ROUNDS_IN_A_ROW: Final = 3
"""After so many void rounds a study stops: more charges would buy nothing."""

HELLO_SECONDS: Final = 30.0
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
        wanted: what people want now; asked between and during exchanges.
        told: called with what people see, whenever it changes.
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
        first: list[Ask] = [Propose(self.plan.canonical.decode())] if propose else [Hello(self.plan.digest)]
        roster = self._roster()
        asks: dict[str, list[Ask]] = {site: list(first) for site in self.sites}
        greetings = self._greetings(asks, 1)
        behind = [s for s, g in greetings.items() if roster and g.roster not in ("", roster.digest)]
        if behind and roster is not None:
            follow = {site: [Follow(roster.canonical.decode()), *first] for site in behind}
            greetings |= self._greetings(follow, 2)
        self._recollect(greetings)
        self._session_lost(greetings)
        self._show(standing={site: g.standing.value for site, g in greetings.items()})
        self._greeted_at, self._standing = time.monotonic(), {site: g.standing for site, g in greetings.items()}
        return self._standing

    def _greetings(self, asks: Mapping[str, Sequence[Ask]], count: int) -> dict[str, Greeting]:
        found = {}
        for outcome in self._exchange("query.hello", asks, HELLO_SECONDS):
            if isinstance(outcome, Answered) and len(outcome.answers) == count:
                try:
                    found[outcome.site] = said(outcome.answers[-1], outcome.site, Greeting)[0]
                except ProtocolViolation as error:
                    log.warning("greeting refused site=%s reason=%r", outcome.site, error.message)
        return found

    def _session_lost(self, greetings: Mapping[str, Greeting]) -> None:
        desk = self._study.desk
        held = "" if desk is None else desk.session.digest
        if desk is not None and any(greeting.session != held for greeting in greetings.values()):
            self._study.desk = None

    def _recollect(self, greetings: Mapping[str, Greeting]) -> None:
        """Carry each restarted site's question to the others, and their answers back."""
        asking = {site: greeting.nonce for site, greeting in greetings.items() if greeting.nonce}
        if not asking or len(greetings) < 2:
            return
        asks: dict[str, list[Ask]] = {
            site: [Recall(origin, nonce) for origin, nonce in asking.items() if origin != site] for site in greetings
        }
        answers: dict[str, list[str]] = {origin: [] for origin in asking}
        for outcome in self._exchange("query.hello", {s: a for s, a in asks.items() if a}, HELLO_SECONDS):
            if not isinstance(outcome, Answered):
                continue
            for ask, content in zip(asks[outcome.site], outcome.answers, strict=False):
                try:
                    recalled = said(content, outcome.site, Recalled)[0]
                except ProtocolViolation:
                    continue
                assert isinstance(ask, Recall)
                answers[ask.origin].append(recalled.answer)
        back: dict[str, list[Ask]] = {origin: [Heads(tuple(found))] for origin, found in answers.items() if found}
        for outcome in self._exchange("query.keys", back, HELLO_SECONDS):
            log.info("heads answered site=%s", outcome.site)

    def _restore(self) -> None:
        """The session that is on disk, if every site still holds it."""
        if self.plan.privacy.secure_aggregation and self._study.desk is None:
            self._study.desk = self.folder.session(self._identity)
            if self._study.desk is not None:
                self._greet()

    def _set_up(self) -> None:
        """A session among the sites that answer, for the rounds that are left; a site that fails is left out."""
        roster = self._roster()
        if roster is None:
            raise Unavailable("there is no roster, and secure aggregation needs one", "sign one: docs/roster.md")
        left_out: set[str] = set()
        while True:
            self._halt()
            self._show(phase="setting up secure aggregation")
            fresh = time.monotonic() - self._greeted_at < HELLO_SECONDS and not left_out
            standing = self._standing if fresh else self._greet()
            self._greeted_at = 0.0
            able = [s for s, word in standing.items() if word is Standing.APPROVED and s not in left_out]
            if len(able) < self.plan.quorum:
                self._sleep(3.0)
                left_out.clear()
                self._note(f"{len(able)} of {self.plan.quorum} sites that are needed answer")
                continue
            number = self.folder.next_session()
            rounds = range(self._study.progress.rounds_done + 1, self.plan.rounds + 1)
            try:
                self._study.desk = set_up(
                    self.plan,
                    roster,
                    self._identity,
                    self._asking,
                    able,
                    name=f"{self.plan.digest[:16]}/{number}",
                    length=self._study.vector_length,
                    rounds=rounds,
                    today=_today(),
                    attempts=self.plan.attempts,
                )
            except (SiteFailed, ProtocolViolation) as error:
                log.warning("set-up failed site=%s reason=%r", error.site, error.message)
                left_out.add(error.site)
                continue
            self.folder.keep_session(self._study.desk)
            self._begun.clear()
            return

    def _asking(self, kind: str, asks: Mapping[str, Ask]) -> Iterator[tuple[str, bytes | Stored | WardroundError]]:
        """One request to each site, as ``server.exchange`` asks."""
        for outcome in self._exchange(kind, {site: [ask] for site, ask in asks.items()}, self.plan.deadline_seconds):
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
            started = time.monotonic()
            opened = self._attempt(number, attempt, kept)
            kept = None
            last = opened.state is RoundState.CLOSED or attempt >= self.plan.attempts
            record = self._study.close_round(opened) if last else self._study.void_record(opened)
            self._recorder.record(record, attempt)
            self.folder.drop_sum()
            self._unwell = {s for s, r in opened.reports.items() if r.outcome is not Outcome.REPLIED} | opened.silent
            del opened  # and with it the model that the round began with, before the next one is written down
            if last:
                self.folder.keep_progress(self._study.progress)
                self._round_seconds.append(time.monotonic() - started)
                self._settled(record)
                return
            attempt += 1
            self.folder.keep_attempt(Attempt(number, attempt, "asked", {}))
            self._note(f"round {number} was void; attempt {attempt}")
            self._sleep(min(2.0 * attempt, 20.0))

    def _attempt(self, number: int, attempt: int, kept: Attempt | None) -> Round:
        if self.plan.privacy.secure_aggregation:
            if self._unwell and self._study.desk is not None:
                self._greet()
                self._unwell = set()
            if self._study.desk is None:
                self._set_up()
                kept = None
        opened = self._study.open_round(time.monotonic(), attempt)
        sums = opened.sums
        summed = (
            kept is not None
            and kept.phase == "summed"
            and isinstance(sums, MaskedSum)
            and self.folder.restore_sum(sums.desk)
        )
        self._show(state="running", round_number=number, attempt=attempt, phase="training")
        if summed and kept is not None and isinstance(sums, MaskedSum):
            sums.restored()
            opened.restore({site: Report(Outcome(word), text) for site, (word, text) in kept.reports.items()})
        else:
            self.folder.keep_attempt(Attempt(number, attempt, "asked", {}))
            self._ask_for_vectors(opened)
        opened.settle(time.monotonic())
        if opened.state is RoundState.CLOSED and isinstance(sums, MaskedSum):
            if not summed:
                self.folder.keep_sum(sums.desk)
                reports = {site: (r.outcome.value, r.detail) for site, r in opened.reports.items()}
                self.folder.keep_attempt(Attempt(number, attempt, "summed", reports))
            self._show(phase="opening the sum")
            open_sum(opened, self._asking)
        return opened

    def _ask_for_vectors(self, opened: Round) -> None:
        sums, desk = opened.sums, self._study.desk
        proposal = sums.desk.proposal if isinstance(sums, MaskedSum) else None
        train = Train(opened.request, proposal)
        sites = self.sites if proposal is None else list(proposal.participants)
        asks: dict[str, list[Ask]] = {}
        for site in sites:
            starting = [begin(self.plan, desk)] if isinstance(desk, SetupDesk) and site not in self._begun else []
            asks[site] = [*self._recorder.beside(site), *starting, train]
        for site in set(self.sites) - set(sites):
            opened.lost(site, time.monotonic(), NO_PART)
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

    def _settled(self, record: RoundRecord) -> None:
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


def _today() -> date:
    return datetime.now(UTC).date()
