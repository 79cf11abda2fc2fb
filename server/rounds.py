"""One round of a study, as a sans-I/O state machine: it is told what happened and when, and does no I/O itself.

::

    OPEN --reply, refusal, lost--> OPEN       a site's first answer counts; every other is noted
    OPEN --deadline or all answered--> CLOSED   at least min_sites replied: the sum is formed
                                   --> VOID     otherwise; nothing is summed
    CLOSED --the sum cannot be opened--> VOID   under secure aggregation, when too few help to open it

The clock is an argument. How vectors are added is ``sums``: in the open, or under masks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.messages import Refusal, RoundRequest
from wardround.protocol.outgoing import Answer
from wardround.protocol.parameters import Total, Vector
from wardround.server.sums import Adding

NO_PART: Final = "it has no part in the session"
"""The report of a site that was not asked, because it was away when the session was set up."""


class RoundState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    VOID = "void"


class Outcome(StrEnum):
    """What a site did in a round."""

    WAITING = "waiting"
    REPLIED = "replied"
    REFUSED = "refused"
    LOST = "lost"
    LATE = "late"
    VIOLATED = "violated the protocol"


class Event(StrEnum):
    """What a round is told of a site."""

    REPLY = "reply"
    LATE_REPLY = "late reply"
    REFUSAL = "refusal"
    LOST = "lost"
    VIOLATION = "violation"


TRANSITIONS: Final[dict[tuple[RoundState, Outcome, Event], Outcome]] = {
    # (state of the round, outcome of the site so far, event): outcome after. Whatever is not here changes nothing:
    # the first answer counts, and an answer after the end cannot enter the sum.
    (RoundState.OPEN, Outcome.WAITING, Event.REPLY): Outcome.REPLIED,
    (RoundState.OPEN, Outcome.WAITING, Event.LATE_REPLY): Outcome.LATE,
    (RoundState.OPEN, Outcome.WAITING, Event.REFUSAL): Outcome.REFUSED,
    (RoundState.OPEN, Outcome.WAITING, Event.LOST): Outcome.LOST,
    (RoundState.OPEN, Outcome.WAITING, Event.VIOLATION): Outcome.VIOLATED,
    (RoundState.CLOSED, Outcome.LOST, Event.REPLY): Outcome.LATE,
    (RoundState.CLOSED, Outcome.LOST, Event.LATE_REPLY): Outcome.LATE,
    (RoundState.VOID, Outcome.LOST, Event.REPLY): Outcome.LATE,
    (RoundState.VOID, Outcome.LOST, Event.LATE_REPLY): Outcome.LATE,
}


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of one site in one round; ``detail`` is a refusal's code or the rule that was broken."""

    outcome: Outcome
    detail: str = ""


@dataclass(slots=True)
class Round:
    """A round that is open until every participant has answered or the deadline has passed.

    Args:
        request: what every participant was sent.
        participants: site names, sorted.
        sums: what adds the vectors up.
        min_sites: the quorum; below it the round is void.
        deadline: on the caller's clock, in seconds.
        must_include: sites without whose vector the round is void.

    ``strangers`` lists senders that the round does not know; their messages change nothing. ``silent`` holds sites
    whose vector arrived and which then did not help to open the sum.
    """

    request: RoundRequest
    participants: tuple[str, ...]
    sums: Adding
    min_sites: int
    deadline: float
    must_include: tuple[str, ...] = ()
    state: RoundState = RoundState.OPEN
    reports: dict[str, Report] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if list(self.participants) != sorted(set(self.participants)) or not self.participants:
            raise UsageError("participants must be distinct and sorted", "sort the names of the sites")
        self.reports = dict.fromkeys(self.participants, Report(Outcome.WAITING))

    def receive(self, answer: Answer, now: float) -> None:
        """Take a site's answer. A reply that breaks a rule drops the site from this round, by name."""
        try:
            self._check(answer)
            if isinstance(answer, Refusal):
                self._on(Event.REFUSAL, answer.site, now, detail=answer.code.value)
                return
            if self._wants(answer.site, now):
                self.sums.add(answer)
            self._on(Event.REPLY, answer.site, now)
        except ProtocolViolation as violation:
            self._on(Event.VIOLATION, violation.site, now, detail=violation.message)

    def restore(self, reports: dict[str, Report]) -> None:
        """Go on from the reports that were written down when the vectors had been added up."""
        self.reports = {site: reports[site] for site in self.participants}

    def lost(self, site: str, now: float, detail: str = "") -> None:
        """The caller knows that ``site`` will not answer (its connection ended)."""
        self._on(Event.LOST, site, now, detail=detail)

    def settle(self, now: float) -> RoundState:
        """Close the round when everybody has answered or the deadline has passed; returns the state after."""
        waiting = [site for site, report in self.reports.items() if report.outcome is Outcome.WAITING]
        if self.state is not RoundState.OPEN or (waiting and now < self.deadline):
            return self.state
        for site in waiting:
            self._on(Event.LOST, site, now, detail="no answer before the deadline")
        enough = len(self.sums.sites) >= self.min_sites and set(self.must_include) <= set(self.sums.sites)
        self.state = RoundState.CLOSED if enough else RoundState.VOID
        return self.state

    def note(self, site: str, detail: str) -> None:
        """Say more of a site that replied, for example that it did not help to open the sum."""
        self.reports[site] = Report(self.reports[site].outcome, detail)

    def void(self, detail: str) -> None:
        """The sum of a closed round cannot be opened: nothing comes out of it; the reports of who replied say why."""
        if self.state is not RoundState.CLOSED:
            raise UsageError(f"round {self.request.round_number} is {self.state}", "only a closed round is opened")
        self.state = RoundState.VOID
        for site in self.sums.sites:
            self.reports[site] = Report(Outcome.REPLIED, detail)

    def total(self) -> Total:
        """The sums of a closed round. Raises UsageError before that, and for a void round."""
        self._closed()
        return self.sums.total()

    def totals(self, size: int) -> Iterator[tuple[slice, Total]]:
        """``total`` in blocks of what is made of it, of ``size`` numbers: no second vector in double precision."""
        self._closed()
        return self.sums.totals(size)

    def spare(self, size: int) -> Vector | None:
        """Memory of the sums for what is made of them, of ``size`` numbers; see ``Adding.spare``."""
        self._closed()
        return self.sums.spare(size)

    def _closed(self) -> None:
        if self.state is not RoundState.CLOSED:
            raise UsageError(f"round {self.request.round_number} is {self.state}: it has no total", "settle it first")

    @property
    def voided_by(self) -> tuple[str, ...]:
        """The sites without whose loss or silence a void round would have had its sum, sorted; else none."""
        if self.state is not RoundState.VOID:
            return ()
        missing = {site for site, report in self.reports.items() if report.outcome is not Outcome.REPLIED}
        return tuple(sorted(missing | self.silent))

    @property
    def contributors(self) -> tuple[str, ...]:
        """The sites whose vectors are in the sum, sorted."""
        return self.sums.sites if self.state is not RoundState.VOID else ()

    def _wants(self, site: str, now: float) -> bool:
        """Whether a reply of ``site`` would be taken now: on time, from a participant, and its first."""
        report = self.reports.get(site)
        if report is None or now > self.deadline:
            return False
        return TRANSITIONS.get((self.state, report.outcome, Event.REPLY)) is Outcome.REPLIED

    def _on(self, event: "Event", site: str, now: float, detail: str = "") -> None:
        report = self.reports.get(site)
        if report is None:
            self.strangers.append(site)
            return
        if event is Event.REPLY and now > self.deadline:
            event = Event.LATE_REPLY
        after = TRANSITIONS.get((self.state, report.outcome, event))
        if after is None:
            return
        self.reports[site] = Report(after, detail)

    def _check(self, answer: Answer) -> None:
        request = self.request
        same = (answer.plan, answer.round_number, answer.attempt) == (
            request.plan,
            request.round_number,
            request.attempt,
        )
        if not same:
            raise ProtocolViolation(answer.site, "the answer belongs to another round")
        if isinstance(answer, Refusal):
            return
        if answer.model_hash != request.model_hash:
            raise ProtocolViolation(answer.site, "the answer starts at another model")
