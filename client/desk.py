"""The site's desk: every request that comes in, checked against plan, approval and exchange, and what goes out for it.

No transport is known here: requests are bytes, answers are ``Outgoing``. A request that breaks a rule is answered with
one of three words and noted in the ledger; the reason stays at the site.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from wardround.client.admission import open_hospital
from wardround.client.gossip import Gossiper
from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.indicator_site import IndicatorSite
from wardround.client.limits import WHO_MENDS, unfit_here
from wardround.client.secure import SecureSite
from wardround.client.settings import read_settings
from wardround.client.site import Site
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.members import Members
from wardround.client.store.receipts import Receipts
from wardround.client.store.results import keep_series
from wardround.client.store.roster import PinnedRoster
from wardround.client.store.studies import Studies
from wardround.client.store.witness import Witness
from wardround.client.witnesses import Recollection
from wardround.privacy.approvals import in_words
from wardround.protocol.behaviour import behaviour
from wardround.protocol.canonical import LABEL_PLAN, digest
from wardround.protocol.checkpoint import verify
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError, WardroundError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.incoming import (
    EXCHANGES,
    Ask,
    AskAgreement,
    AskConsent,
    AskDeal,
    AskKeys,
    AskOpening,
    AskWhole,
    Begin,
    Cosign,
    Finish,
    Follow,
    Gossip,
    Heads,
    Hello,
    Keep,
    Propose,
    Recall,
    SignReceipt,
    Stop,
    Train,
    parse_ask,
)
from wardround.protocol.indicators import Indicators
from wardround.protocol.ledger import Refuse
from wardround.protocol.messages import (
    Cosigned,
    Done,
    Gossiped,
    Greeting,
    Recalled,
    Refusal,
    RefusalCode,
    Signed,
    Standing,
)
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt, parse_receipt
from wardround.protocol.witness import NONCE_SIZE

MOST_REFUSALS: Final = 1_000
"""Refusals of one process that are noted in the ledger; a coordinator can fill no disk with requests."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seen:
    """What the desk shows the people of the site. Public facts only: nothing of a patient."""

    last_exchange: str = ""
    last_at: str = ""
    last_plan: str = ""
    round_number: int = 0
    refusals: int = 0
    open_alarms: int = 0


@dataclass(slots=True)
class Switches:
    """What the people of the site have switched: read by the desk before every request and every optimiser step."""

    paused: bool = False
    stopping: bool = False
    stopped_plans: set[str] = field(default_factory=set)
    run_ended: bool = False

    def halt(self, plan: str) -> bool:
        return self.stopping or self.run_ended or plan in self.stopped_plans


class Desk:
    """One site's desk. Belongs to one thread, as its database does.

    Args:
        finished: called with a study's plan and final model when the coordinator says that it is over.
    """

    def __init__(
        self,
        folder: SiteFolder,
        switches: Switches,
        finished: Callable[[StudyPlan, Any], None] = lambda plan, model: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.switches = switches
        self.seen = Seen()
        self._clock = clock
        self._finished = finished
        store = open_store(folder.database)
        identity = folder.identity()
        self.ledger = Ledger(store, folder.site, identity)
        self.members = Members(store, folder.patients_key())
        self.studies = Studies(store)
        self.receipts = Receipts(store)
        self._identity = identity
        self._evidence = Evidence(store, folder.site)
        self._roster = PinnedRoster(store, identity.public)
        self._witness = Witness(store, identity)
        self.gossip = Gossiper(store, self.ledger, self._witness, identity, clock)
        self._heads = Recollection(self.ledger, identity.public, os.urandom)
        self._hospitals: dict[str, Site | IndicatorSite | SecureSite] = {}
        self._noted: set[str] = set()
        self.seen.open_alarms = len(self.gossip.watch.open_alarms())

    def answer(self, exchange: str, plan: str, requests: Sequence[bytes | memoryview]) -> list[Outgoing]:
        """What leaves for the requests of one exchange, in their order; at least one answer.

        Args:
            exchange: Flower's message type.
            plan: digest of the plan whose bundle the exchange came with.
        """
        self.seen.last_exchange, self.seen.last_plan = exchange, plan
        self.seen.last_at = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        if exchange not in EXCHANGES:
            return [self.refuse(plan, "it sent a message of a type that this site does not know")]
        if not requests:
            return [self.refuse(plan, "it sent an exchange without a request")]
        began = time.monotonic()
        answers = [self._one(exchange, plan, request) for request in requests]
        self.seen.open_alarms = len(self.gossip.watch.open_alarms())
        log.info("answered exchange=%s plan=%s in=%.2fs", exchange, plan[:12], time.monotonic() - began)
        return answers

    def refuse(
        self, plan: str, reason: str, code: RefusalCode = RefusalCode.PROTOCOL, number: int = 0, attempt: int = 0
    ) -> Outgoing:
        """A refusal of something that is no round (0), or of one for which there is no hospital now.

        Its reason goes into the ledger, once.
        """
        self.seen.refusals += 1
        log.warning("refused plan=%s round=%d code=%s reason=%r", plan[:12], number, code.value, reason)
        if reason not in self._noted and len(self._noted) < MOST_REFUSALS:
            self._noted.add(reason)
            self.ledger.record(Refuse(plan=plan, round_number=number, reason=reason))
        return outgoing(Refusal(self.folder.site, plan, number, attempt, code))

    def standing(self, plan: StudyPlan) -> Standing:
        """How a plan stands here: what officers have signed, and what the switches say."""
        state = self.ledger.state
        grants = [grant for (of, _), grant in state.grants.items() if of == plan.digest]
        held = self.studies.get(plan.digest)
        if held is not None and held.refused is not None:
            return Standing.REFUSED
        if not grants:
            return Standing.PROPOSED
        if any(grant.fact.blocks == 0 for grant in grants):
            return Standing.REVOKED
        if state.plan_suspended_by(plan.digest):
            return Standing.SUSPENDED
        return Standing.PAUSED if self.switches.paused else Standing.APPROVED

    def _one(self, exchange: str, plan: str, request: bytes | memoryview) -> Outgoing:
        asked = (0, 0)
        try:
            ask = parse_ask(request)
            asked = (ask.request.round_number, ask.request.attempt) if isinstance(ask, Train) else asked
            if type(ask) not in EXCHANGES[exchange]:
                raise ProtocolViolation(COORDINATOR, f"it sent {type(ask).__name__} in the exchange '{exchange}'")
            if _plan_of(ask) not in (None, plan):
                raise ProtocolViolation(COORDINATOR, "a request names another plan than the bundle that it came with")
            return self._answer(plan, ask)
        except ProtocolViolation as error:
            return self.refuse(plan, error.message, RefusalCode.PROTOCOL, *asked)
        except UsageError as error:
            return self.refuse(plan, error.message, RefusalCode.POLICY, *asked)
        except WardroundError as error:
            return self.refuse(plan, error.message, RefusalCode.UNAVAILABLE, *asked)

    def _answer(self, plan: str, ask: Ask) -> Outgoing:
        match ask:
            case Propose():
                self.studies.add(ask.plan.encode())
                return self._greeting(plan)
            case Hello():
                return self._greeting(plan)
            case Follow():
                self._roster.advance(ask.roster.encode())
                return self._done()
            case SignReceipt():
                return self._sign(parse_receipt(ask.receipt.encode()))
            case Cosign():
                return self._cosign(ask)
            case Keep():
                return self._keep(ask)
            case Gossip():
                others = self._others()
                self.gossip.hear(ask.bulletins, others)
                return outgoing(Gossiped(self.folder.site, self.gossip.bulletin(others).decode()))
            case Recall():
                nonce = bytes.fromhex(ask.nonce)
                if len(nonce) != NONCE_SIZE:
                    raise ProtocolViolation(COORDINATOR, "it brought a question without a nonce")
                return outgoing(Recalled(self.folder.site, self._witness.seen(ask.origin, nonce).decode()))
            case Heads():
                self._heads.take(ask.answers, self._others())
                return self._done()
            case Stop():
                self._hospitals.pop(plan, None)
                self.ledger.recover(plan)
                return self._done()
            case Finish():
                return self._finish(plan, ask)
            case Train():
                return self._train(plan, ask)
        return self._secure_step(plan, ask)

    def _train(self, plan: str, ask: Train) -> Outgoing:
        self.switches.run_ended = False
        hospital = self._hospital(plan)
        self.seen.round_number = ask.request.round_number
        today = self._clock().date()
        if isinstance(hospital, SecureSite):
            if ask.proposal is None:
                raise ProtocolViolation(COORDINATOR, "it asked for a vector in the open, and the plan asks for masks")
            answer = hospital.answer(ask.request, ask.proposal, today)
        else:
            answer = hospital.answer(ask.request, today)
        self._keep_series(plan, ask.request.model)
        return answer

    def _keep_series(self, plan: str, table: Vector) -> None:
        """Of a campaign: keep the table that a tick brought, for this site's own people, if the last receipt names it.

        The answer does not depend on it: a full disk costs a plot and no tick.
        """
        held = self.studies.get(plan)
        if held is None or not isinstance(held.plan.task, Indicators) or table.shape != (held.plan.layout.size,):
            return
        if not (last := self.receipts.newest(plan)) or model_hash(table) != last[0].model_after:
            return
        try:
            keep_series(self.folder, held.plan, table)
        except OSError as error:
            log.warning("the series is not kept plan=%s reason=%s", plan[:12], error.strerror)

    def _secure_step(self, plan: str, ask: Ask) -> Outgoing:
        hospital = self._hospital(plan)
        if not isinstance(hospital, SecureSite):
            raise ProtocolViolation(COORDINATOR, "it asked for secure aggregation, which the plan does not have")
        match ask:
            case AskKeys():
                if not self._heads.satisfied:
                    raise Unavailable("not enough others have said which head they have seen", "ask them first")
                return hospital.keys(ask.session, self._clock().date())
            case AskDeal():
                return hospital.deal(ask.keys)
            case AskAgreement():
                return hospital.agree(ask.deals, ask.parcels)
            case Begin():
                hospital.begin(ask.agreements)
                return self._done()
            case AskConsent():
                return hospital.consent(ask.proposal, ask.survivors)
            case AskOpening():
                return hospital.open(ask.proposal, ask.consents)
            case AskWhole():
                return hospital.open_whole(ask.proposal, ask.survivors)
        raise ProtocolViolation(COORDINATOR, "it sent a request that this site does not know")

    def _hospital(self, plan: str) -> Site | IndicatorSite | SecureSite:
        """The hospital of an approved plan. Raises WardroundError, with the reason, when it may not work now."""
        held = self.studies.get(plan)
        if held is None:
            raise UsageError("the plan was never proposed here", "propose it first")
        if (fault := unfit_here(held.plan, self.folder)) is not None:
            raise UsageError(fault, WHO_MENDS)
        standing = self.standing(held.plan)
        if standing is Standing.PAUSED:
            raise Unavailable("the site is paused by its own people", "wait")
        if standing is Standing.SUSPENDED:
            gone = in_words(self.ledger.state.plan_suspended_by(plan))
            raise Unavailable(f"the plan rests on {gone}, and waits to be signed again", "an officer signs it again")
        if standing is not Standing.APPROVED or plan in self.switches.stopped_plans:
            raise UsageError(f"the plan is {standing.value} here", "an officer of the site decides")
        if plan not in self._hospitals:
            settings = read_settings(self.folder.path)
            parts = (self.ledger, self.members, self._roster, self._evidence)
            self._hospitals[plan] = open_hospital(
                held.plan, self.folder, settings, *parts, lambda: self.switches.halt(plan), self._clock
            )
        return self._hospitals[plan]

    def _greeting(self, plan: str) -> Outgoing:
        held, roster, hospital = self.studies.get(plan), self._roster.held(), self._hospitals.get(plan)
        session = hospital.session if isinstance(hospital, SecureSite) else ""
        return outgoing(
            Greeting(
                self.folder.site,
                plan,
                Standing.UNKNOWN if held is None else self.standing(held.plan).told,
                behaviour(),
                "" if roster is None else roster.digest,
                session,
                "" if roster is None else self._heads.question,
            )
        )

    def _sign(self, receipt: Receipt) -> Outgoing:
        """Countersign a receipt that agrees with this site's own ledger, and offer the ledger's head to witnesses."""
        known = {} if self._roster.held() is None else {COORDINATOR: self._party(COORDINATOR)}
        if known and COORDINATOR not in receipt.verified_signers(known):
            raise ProtocolViolation(COORDINATOR, f"the receipt of round {receipt.round_number} is not signed by it")
        if (fault := self._receipt_fault(receipt)) is not None:
            raise ProtocolViolation(COORDINATOR, f"the receipt of round {receipt.round_number} {fault}")
        signed = receipt.signed_by(self._identity)
        if self.receipts.get(receipt.plan, receipt.round_number, receipt.attempt) is None:
            self.gossip.settled(receipt, self._roster_names())
        self.receipts.keep(signed)
        own = next(one for one in signed.signatures if one.site == self.folder.site)
        proofs = tuple(
            (witness, tuple(step.hex() for step in self.ledger.offer(size)[1]))
            for witness, size in sorted(self.ledger.state.countersigned.items())
        )
        checkpoint = self.ledger.checkpoint().decode()
        return outgoing(Signed(self.folder.site, receipt.digest, own.signature, checkpoint, proofs))

    def _cosign(self, ask: Cosign) -> Outgoing:
        """Sign another site's head, unless an alarm on its ledger is open or it does not continue what was signed."""
        origin, note = self._party(ask.origin), ask.checkpoint.encode()
        if self.gossip.suspects(ask.origin):
            raise ProtocolViolation(ask.origin, "an alarm on its ledger has no answer, so no head of it is cosigned")
        try:
            signed = self._witness.cosign(note, [bytes.fromhex(step) for step in ask.proof], origin)
        except ProtocolViolation:
            self.gossip.refused(note, origin)
            raise
        return outgoing(Cosigned(self.folder.site, signed.decode()))

    def _keep(self, ask: Keep) -> Outgoing:
        """Keep a cosignature; one of a head that this file does not hold shows that the file is an older copy."""
        witness, note = self._party(ask.witness), ask.note.encode()
        signed = verify(note, self._identity.public, [witness])
        if witness.site in signed.cosigners and signed.checkpoint.head.size:
            self.ledger.rolled_back(signed.checkpoint.head, witness.site)
        self.ledger.countersign(note, witness)
        self.gossip.cosigned(witness.site, signed.checkpoint.head.size, len(self._roster_names()))
        return self._done()

    def _receipt_fault(self, receipt: Receipt) -> str | None:
        line = receipt.line.get(self.folder.site)
        if line is None:
            return "leaves this site out"
        known = self.receipts.get(receipt.plan, receipt.round_number, receipt.attempt)
        if known is not None and known.digest != receipt.digest:
            return "is another one than this site has signed"
        state = self.ledger.state
        released = any(
            state.has_released(block.name, receipt.round_number, receipt.attempt)
            for block in state.blocks.values()
            if block.plan == receipt.plan and block.domain != CONSORTIUM_DOMAIN
        )
        if line.outcome == "replied" and not released:
            return "says that this site took part, and its ledger has nothing of it"
        if not self._was_trained(receipt):
            return "names another model than the receipt of the training, which this site holds"
        named = next((one for one in receipt.witnessed if one.site == self.folder.site), None)
        signed = state.countersigned
        if named is not None and not state.recovered and any(signed.get(w, 0) < named.size for w in named.witnesses):
            return "names a witness whose signature this site's ledger does not hold"
        return None

    def _was_trained(self, receipt: Receipt) -> bool:
        """Whether the model that was evaluated came out of its round of training, as far as this site knows."""
        held = self.studies.get(receipt.plan)
        follows = None if held is None else held.plan.follows
        if follows is None or receipt.round_number > len(follows.rounds):
            return receipt.evaluated is None
        trained = self.receipts.closed(follows.plan, follows.rounds[receipt.round_number - 1])
        return trained is None or receipt.evaluated == trained.model_after

    def _finish(self, plan: str, ask: Finish) -> Outgoing:
        held = self.studies.get(plan)
        if held is None or self.standing(held.plan) not in (
            Standing.APPROVED,
            Standing.PAUSED,
            Standing.SUSPENDED,
        ):
            raise UsageError("the plan is not approved here", "an officer of the site decides")
        if ask.model.shape != (held.plan.layout.size,) or model_hash(ask.model) != ask.model_hash:
            raise ProtocolViolation(COORDINATOR, "the final model is not the one that its hash names")
        last = self.receipts.of(plan)
        if last and last[-1].model_after != ask.model_hash:
            raise ProtocolViolation(COORDINATOR, "the final model is not the one that the last receipt names")
        self._finished(held.plan, ask.model.copy())
        self._hospitals.pop(plan, None)
        return self._done()

    def _party(self, name: str) -> PublicIdentity:
        roster = self._roster.held()
        if roster is None:
            raise UsageError("no roster is pinned here", "pin it first")
        if name == COORDINATOR:
            return PublicIdentity(COORDINATOR, bytes.fromhex(roster.coordinator.key))
        party = roster.identities.get(name)
        if party is None:
            raise ProtocolViolation(COORDINATOR, "it named a site that is not in the roster")
        return party

    def _roster_names(self) -> tuple[str, ...]:
        roster = self._roster.held()
        return () if roster is None else tuple(roster.identities)

    def _others(self) -> dict[str, PublicIdentity]:
        roster = self._roster.held()
        names = () if roster is None else roster.identities
        return {name: self._party(name) for name in names if name != self.folder.site}

    def _done(self) -> Outgoing:
        return outgoing(Done(self.folder.site))


def _plan_of(ask: Ask) -> str | None:
    """The plan that a request names, or None."""
    match ask:
        case Propose():
            return digest(LABEL_PLAN, ask.plan.encode())
        case Train():
            return ask.request.plan
        case AskKeys():
            return ask.session.plan
        case SignReceipt():
            return parse_receipt(ask.receipt.encode()).plan
        case Follow() | Heads() | Cosign() | Keep() | Recall() | Gossip():
            return None
    return ask.plan
