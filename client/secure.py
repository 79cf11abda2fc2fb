"""A hospital under secure aggregation: the same ``Site``, whose replies leave under masks only.

The noised update is finished and stored by ``Site``; here it becomes integers, is masked, and the sum is helped open.
The terms of a session come from the approved plan and the pinned roster, never from the coordinator. A proposal is
checked before anything is trained for it, so that a coordinator cannot use up a budget with requests that end in a
refusal. What is signed and opened is in the ledger before it leaves, and so is every rule that the coordinator broke.
Sessions live in memory and end with the process: after a restart a site joins a new one.
"""

import hmac
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Final, NoReturn, Protocol

from wardround.client.site import Phase, drive
from wardround.client.store.evidence import Evidence
from wardround.client.store.ledger import Ledger
from wardround.client.store.roster import PinnedRoster
from wardround.privacy.secagg.client import Opened, SitePlayer, TwoRequests
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.scale import session_for
from wardround.privacy.secagg.session import RandomBytes, Setup
from wardround.protocol.canonical import LABEL_SECAGG, encode
from wardround.protocol.errors import ProtocolViolation, Unavailable
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import OpenSum, Refuse, SignSurvivors
from wardround.protocol.messages import Masked, RefusalCode, Reply, RoundRequest
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import outsiders_only
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Proposal, Session, Survivors

SECRET_SIZE: Final = 32

MAX_ATTEMPTS: Final = 10
"""Attempts at a round that a session may hold masks for."""

SESSION_DAYS: Final = 30
"""How long a session may be used; a longer study is a chain of sessions."""

REQUEST: Final = "request"
"""The kind of evidence that a coordinator's request is."""

SETUP: Final = 0
"""The round number under which the ledger notes what was refused while a session was set up."""


class Hospital(Protocol):
    """What answers rounds behind the masks: a ``Site``, or an ``IndicatorSite``."""

    plan: StudyPlan
    ledger: Ledger

    @property
    def name(self) -> str: ...
    def recover(self) -> None: ...
    def work(self, request: RoundRequest, today: date) -> Generator[Phase, None, Outgoing]: ...
    def block_of(self, reply: Reply) -> str: ...
    def refuse(self, request: RoundRequest, code: RefusalCode, reason: str) -> Outgoing: ...


class SecureSite:
    """One hospital in sessions of secure aggregation.

    Args:
        make_site: gives the ``Hospital`` whose replies are sealed by what it is called with.
        identity: the site's key, which the roster names.
        roster: the roster that this site holds.
        evidence: keeps what the coordinator signed when it broke a rule.
        quantizer: what the plan's integers mean.
        secret: 32 bytes that the site keeps. Rounding is drawn from it and the block in which the reply was made, so
            that a reply that is masked again becomes the same integers: others would be another sum over the same
            patients.
        random_bytes: ``os.urandom``.
    """

    def __init__(
        self,
        make_site: Callable[[Callable[[Reply], Outgoing]], Hospital],
        identity: Identity,
        roster: PinnedRoster,
        evidence: Evidence,
        quantizer: Quantizer,
        secret: bytes,
        random_bytes: RandomBytes,
    ) -> None:
        if len(secret) != SECRET_SIZE:
            raise ValueError(f"the secret of the rounding has {SECRET_SIZE} bytes")
        self.site = make_site(self._masked)
        self.identity = identity
        self.roster = roster
        self.evidence = evidence
        self._quantizer = quantizer
        self._secret = secret
        self._random = random_bytes
        self._setup: Setup | None = None
        self._player: SitePlayer | None = None
        self._proposal: Proposal | None = None
        self._until = date.min
        self._noted: set[tuple[int, str]] = set()
        self._told: dict[str, tuple[Any, Outgoing]] = {}
        self._begun: tuple[Agreement, ...] = ()

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def session(self) -> str:
        """The digest of the session that this process holds; "" for none."""
        return "" if self._player is None else self._player.session.digest

    @property
    def ready(self) -> bool:
        """Whether this process has a session; none after a restart."""
        return self._player is not None

    def restart(self) -> None:
        """What a crash leaves: the ledger settles what was open, and the session is gone."""
        self._setup = self._player = self._proposal = None
        self._told, self._begun = {}, ()
        self.site.recover()

    def keys(self, offered: Session, today: date) -> Outgoing:
        """S1 of a new session; the one before ends. A request of the set-up that comes again gets the same bytes.

        Raises:
            ProtocolViolation: the session is not the one that the plan and this site's roster give.
            Unavailable: this site's ledger was put back to an older copy, and nobody has signed a recovery.
            UsageError: no roster is pinned.
        """
        with self._refusals(SETUP):
            session = self._checked(offered, today)
        if (before := self._told.get("keys")) is None or before[0] != session:
            self._told, self._begun, self._player = {}, (), None
            self._setup = Setup(session, self.identity, self._random)
            self._until = today + timedelta(days=SESSION_DAYS)
        return self._once("keys", session, lambda: outgoing(self._joining().keys()))

    def deal(self, keys: Sequence[Keys]) -> Outgoing:
        """S2."""
        with self._refusals(SETUP):
            return self._once("deal", tuple(keys), lambda: outgoing(*self._joining().deal(keys)))

    def agree(self, deals: Sequence[Deal], parcels: Sequence[Parcel]) -> Outgoing:
        """S3."""
        with self._refusals(SETUP):
            asked = (tuple(deals), tuple(parcels))
            return self._once("agree", asked, lambda: outgoing(self._joining().agree(deals, parcels)))

    def begin(self, agreements: Sequence[Agreement]) -> None:
        """Set-up is over; rounds may come."""
        if self.ready and self._begun == tuple(agreements):
            return
        with self._refusals(SETUP):
            ready = self._joining().begin(agreements)
        opened = self.site.ledger.state.sums.opened
        self._player = SitePlayer(ready, [Opened(inputs, sites) for inputs, sites in opened.items()])
        self._setup, self._begun = None, tuple(agreements)

    def answer(self, request: RoundRequest, proposal: Proposal, today: date) -> Outgoing:
        """R1: the masked vector of the round, or a refusal."""
        return drive(self.work(request, proposal, today))

    def work(self, request: RoundRequest, proposal: Proposal, today: date) -> Generator[Phase, None, Outgoing]:
        """R1, phase by phase; see ``Site.work``."""
        bound = (proposal.round_number, proposal.attempt) == (request.round_number, request.attempt)
        try:
            if not bound:
                _violated("its proposal is for another round than its request")
            if today > self._until:
                _violated(f"the session is over since {self._until}; it must be set up anew")
            self._playing().check(proposal, request.model_hash)
        except ProtocolViolation as error:
            self._keep(error, proposal)
            return self.site.refuse(request, RefusalCode.PROTOCOL, error.message)
        self._proposal = proposal
        return (yield from self.site.work(request, today))

    def consent(self, proposal: Proposal, survivors: Survivors) -> Outgoing:
        """R2. Raises ProtocolViolation for a list that may not be signed; the shell sends nothing."""
        with self._refusals(proposal.round_number, proposal, survivors):
            signed = self._playing().consent(proposal, survivors)
            if _slot(proposal) not in self.site.ledger.state.sums.listed:
                self.site.ledger.record(SignSurvivors(**self._about(proposal), survivors=signed.survivors))
        return outgoing(signed)

    def open(self, proposal: Proposal, consents: Sequence[Consent]) -> Outgoing:
        """R3: that the sum was opened is on disk before the opening is there to be sent."""
        with self._refusals(proposal.round_number):
            record, opening = self._playing().open(proposal, consents)
            self._note_opening(proposal, record, opening)
        return outgoing(opening)

    def open_whole(self, proposal: Proposal, survivors: Survivors) -> Outgoing:
        """R2 and R3 in one: that the list is this site's and the sum was opened is on disk before anything is sent."""
        with self._refusals(proposal.round_number, proposal, survivors):
            record, opening = self._playing().open_whole(proposal, survivors)
            if _slot(proposal) not in self.site.ledger.state.sums.listed:
                self.site.ledger.record(SignSurvivors(**self._about(proposal), survivors=opening.survivors))
            self._note_opening(proposal, record, opening)
        return outgoing(opening)

    def _checked(self, offered: Session, today: date) -> Session:
        """The session that is offered, if plan and roster give the same."""
        plan, state = self.site.plan, self.site.ledger.state
        if (missing := self.site.ledger.missing_head()) is not None:
            raise Unavailable(
                f"others have seen {missing} entries of the ledger of site '{self.name}', which it does not hold",
                "it was restored from an older copy: two officers sign a recovery first",
            )
        if any(session == offered.digest for session, _, _ in state.sums.listed):
            _violated("it offers a session that was used before")
        names = [member.site for member in offered.members]
        if not set(names) <= {participant.site for participant in plan.participants}:
            _violated("it offers a session with a site that the plan does not name")
        rounds, attempts = offered.rounds, offered.attempts
        if list(rounds) != sorted(set(rounds)) or not rounds or not 1 <= rounds[0] <= rounds[-1] <= plan.rounds:
            _violated("it offers a session for other rounds than the plan's")
        if not 1 <= attempts <= MAX_ATTEMPTS:
            _violated(f"it offers a session with {attempts} attempts at a round")
        roster, members = self.roster.members(names, today)
        if outsiders_only(roster) and not plan.privacy.outsiders_only:
            _violated("the plan claims protection from the coordinator, whose authority directs a site of the roster")
        own = session_for(
            plan,
            members,
            roster=roster.digest,
            name=offered.name,
            length=self._quantizer.length,
            rounds=rounds,
            attempts=attempts,
            coordinator=PublicIdentity(COORDINATOR, bytes.fromhex(roster.coordinator.key)),
        )
        if own != offered:
            _violated("it offers a session on other terms than plan and roster give")
        return own

    def _masked(self, reply: Reply) -> Outgoing:
        """What leaves for a finished reply."""
        player, proposal = self._playing(), self._proposal
        if proposal is None or proposal.round_number != reply.round_number:
            _violated("it proposed no attempt for this reply")
        if (reply.plan, reply.round_number) in self.site.ledger.state.sums.forgotten:
            _violated(f"round {reply.round_number} was answered before a recovery, and its sum may have been opened")
        block = encode([reply.plan, self.site.block_of(reply)])
        rounding, inputs = (
            hmac.digest(self._secret, LABEL_SECAGG.encode() + b"\x00" + use + b"\x00" + block, "sha256")
            for use in (b"rounding", b"inputs")
        )
        values = self._quantizer.quantize(reply.vector, rounding)
        upload, vector = player.mask(proposal, reply.model_hash, values, inputs.hex())
        about = (reply.site, reply.plan, reply.round_number, proposal.attempt, reply.model_hash)
        return outgoing(Masked(*about, upload, vector))

    def _note_opening(self, proposal: Proposal, record: Opened, opening: Opening) -> None:
        """That the sum was opened, on disk; then its vectors are dropped."""
        if _slot(proposal) not in self.site.ledger.state.sums.shared:
            about, sites, inputs = self._about(proposal), record.survivors, record.inputs
            self.site.ledger.record(OpenSum(**about, survivors=opening.survivors, sites=sites, inputs=inputs))
        self._playing().forget(proposal.round_number)

    def _about(self, proposal: Proposal) -> dict[str, Any]:
        session, number = proposal.session, proposal.round_number
        return {"session": session, "plan": self.site.plan.digest, "round_number": number, "attempt": proposal.attempt}

    @contextmanager
    def _refusals(self, round_number: int, *asked: Proposal | Survivors) -> Iterator[None]:
        """Note in the ledger, once each, which rule was broken, before the caller hears of it."""
        try:
            yield
        except ProtocolViolation as error:
            if (round_number, error.message) not in self._noted:
                self._noted.add((round_number, error.message))
                self._keep(error, *asked)
                plan = self.site.plan.digest
                self.site.ledger.record(Refuse(plan=plan, round_number=round_number, reason=error.message))
            raise

    def _keep(self, error: ProtocolViolation, *asked: Proposal | Survivors) -> None:
        """Keep what the coordinator signed: two requests that contradict each other, or one that broke a rule."""
        if isinstance(error, TwoRequests):
            self.evidence.keep(REQUEST, *error.evidence)
        elif self._player is not None and all(self._player.session.asked(request) for request in asked):
            self.evidence.keep(REQUEST, *(request.evidence for request in asked))

    def _once(self, step: str, asked: Any, make: Callable[[], Outgoing]) -> Outgoing:
        """What a step of the set-up says: to the same request the same, as a transport may deliver it twice."""
        before = self._told.get(step)
        if before is None or before[0] != asked:
            before = self._told[step] = (asked, make())
        return before[1]

    def _joining(self) -> Setup:
        if self._setup is None:
            _violated("it goes on with a set-up that this site has not begun")
        return self._setup

    def _playing(self) -> SitePlayer:
        if self._player is None:
            _violated("this site has no session; it must be set up anew")
        return self._player


def _slot(proposal: Proposal) -> tuple[str, int, int]:
    return proposal.session, proposal.round_number, proposal.attempt


def _violated(what: str) -> NoReturn:
    raise ProtocolViolation(COORDINATOR, what)
