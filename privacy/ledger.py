"""The rules of a privacy ledger: what its facts add up to, and which fact may come next.

One class for both sides: a site asks it before it writes, and whoever verifies a ledger plays every entry through it
again. It reads no clock and no file; admission to a budget is the filter of ``budget``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from wardround.privacy.budget import Refused, allowance, cost, fits, fixed_order
from wardround.privacy.sums import SumState
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, PoissonGaussian, Unprotected
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import (
    TRANSITIONS,
    Abandon,
    Approved,
    BlockState,
    Cancel,
    Charge,
    Close,
    Countersign,
    Fact,
    Grant,
    Inquiry,
    Officers,
    OpenDomain,
    OpenLedger,
    OpenSum,
    Recover,
    Refuse,
    Release,
    Reserve,
    SetClock,
    SignSurvivors,
    Start,
    Waive,
    approval_message,
)

EYES_TO_RECOVER: Final = 2
"""Officers who must sign a recovery, or a new list of officers."""

EYES_TO_WAIVE: Final = 2
"""Officers who must sign that a plan runs without differential privacy."""


class NotAllowed(UsageError):
    """The fact may not stand at this place of the ledger."""


class NotAdmitted(NotAllowed):
    """A reservation is refused; nothing is charged. ``message`` is the reason."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A patient population's budget now, in units of 1e-12 at its order; allowance None: a simulation without one."""

    fact: OpenDomain
    allowance: int | None
    spent: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Allotment:
    """What a plan may still do on a domain: the officer's grant, what one block costs, and the blocks it has used."""

    fact: Grant
    price: int
    used: int = 0

    @property
    def left(self) -> int:
        return max(0, self.fact.blocks - self.used)


@dataclass(frozen=True, slots=True)
class Block:
    """A round of a plan on a domain as the ledger sees it now; ``attempts``: for which it released an answer."""

    name: str
    domain: str
    plan: str
    round_number: int
    state: BlockState
    attempts: tuple[int, ...] = ()


@dataclass(slots=True)
class LedgerState:
    """Everything that the first ``size`` facts of a ledger say.

    ``grants`` is by (plan, domain), ``recovered`` by the head that was lost, ``charged`` counts blocks by plan,
    ``answered`` holds the rounds of a plan that were released, ``started_without`` the opted-out patients by block,
    ``countersigned`` the size that each witness signed last, ``current`` the one block of a plan's round on a domain
    that is neither cancelled nor abandoned, ``waived`` the plans that may run on a domain without differential privacy,
    ``sums`` what was signed and opened under secure aggregation.
    """

    size: int = 0
    opened: OpenLedger | None = None
    officers: Officers | None = None
    domains: dict[str, Domain] = field(default_factory=dict)
    grants: dict[tuple[str, str], Allotment] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    recovered: dict[tuple[int, str], Recover] = field(default_factory=dict)
    charged: Counter[str] = field(default_factory=Counter)
    answered: dict[str, set[int]] = field(default_factory=dict)
    started_without: dict[str, int] = field(default_factory=dict)
    current: dict[tuple[str, str, int], str] = field(default_factory=dict)
    countersigned: dict[str, int] = field(default_factory=dict)
    waived: dict[tuple[str, str], Waive] = field(default_factory=dict)
    sums: SumState = field(default_factory=SumState)

    def apply(self, fact: Fact) -> None:
        """Take one more fact. Raises NotAllowed, with the state unchanged, when it may not come next."""
        self.check(fact)
        match fact:
            case OpenLedger():
                self.opened = fact
            case Officers():
                self.officers = fact
            case OpenDomain():
                units = None if fact.epsilon_cap is None else allowance(fact.epsilon_cap, fact.delta, fact.order or 0)
                self.domains[fact.domain] = Domain(fact, units)
            case Waive():
                self.waived[fact.plan, fact.domain] = fact
            case Grant():
                before = self.grants.get((fact.plan, fact.domain))
                self.grants[fact.plan, fact.domain] = Allotment(
                    fact, self._price(fact.domain, fact.event), before.used if before else 0
                )
            case Reserve():
                self.blocks[fact.block] = Block(
                    fact.block, fact.domain, fact.plan, fact.round_number, BlockState.RESERVED
                )
                self.current[fact.plan, fact.domain, fact.round_number] = fact.block
                self._charge(fact.plan, fact.domain, 1)
            case Start():
                self._move(fact)
                self.started_without[fact.block] = fact.opted_out_at_most
            case Abandon():
                block = self._move(fact)
                self.answered.get(block.plan, set()).discard(block.round_number)
                del self.current[block.plan, block.domain, block.round_number]
            case Cancel():
                block = self._move(fact)
                del self.current[block.plan, block.domain, block.round_number]
                self._charge(block.plan, block.domain, -1)
            case Release():
                block = self._move(fact)
                self.blocks[fact.block] = replace(block, attempts=(*block.attempts, fact.attempt))
                self.answered.setdefault(block.plan, set()).add(block.round_number)
            case SignSurvivors() | OpenSum():
                self.sums.apply(fact)
            case Close():
                self.domains[fact.domain] = replace(self.domains[fact.domain], closed=True)
            case Recover():
                self._recover(fact)
            case Countersign():
                self.countersigned[fact.signer] = max(self.countersigned.get(fact.signer, 0), fact.size)
            case Refuse() | Inquiry() | SetClock():
                pass
            case _:
                assert_never(fact)
        self.size += 1

    def check(self, fact: Fact) -> None:
        """Raise NotAllowed unless ``fact`` may come next; a reservation raises NotAdmitted."""
        if (self.opened is None) is not isinstance(fact, OpenLedger):
            raise _not_allowed("a ledger begins with one entry that names its site, and has no second one")
        match fact:
            case Officers():
                self._check_officers(fact)
            case OpenDomain():
                self._check_domain(fact)
            case Waive():
                self._check_waive(fact)
            case Grant():
                self._check_grant(fact)
            case Reserve():
                self._check_reserve(fact)
            case Start() | Cancel() | Release() | Abandon():
                self._check_move(fact)
            case SignSurvivors() | OpenSum():
                answered = fact.round_number in self.answered.get(fact.plan, ())
                if fault := self.sums.fault(fact, self.opened.site if self.opened else "", answered):
                    raise _not_allowed(fault)
            case Close():
                if self._domain(fact.domain).closed:
                    raise _not_allowed(f"the data domain '{fact.domain}' is closed already")
                self._check_approved(fact, 1)
            case Recover():
                self._check_recover(fact)
            case Countersign():
                if fact.size > self.size:
                    raise _not_allowed(f"entry {fact.size} does not exist, so nobody can have countersigned it")
            case SetClock():
                self._check_approved(fact, 1)
            case Inquiry():
                if self.protected and (self.officers is None or fact.officer not in self.officers.officers):
                    raise _not_allowed(f"'{fact.officer}' is no officer of this site")
            case OpenLedger() | Refuse():
                pass
            case _:
                assert_never(fact)

    @property
    def protected(self) -> bool:
        """Whether this is a hospital's ledger: it has a key, and officers approve. Else a simulation's."""
        return self.opened is not None and self.opened.key is not None

    def events(self, *, plan: str | None = None, domain: str | None = None) -> Iterator[tuple[DpEvent, int]]:
        """Every event that counts, and how often, of one plan or domain or of all: never less than what happened."""
        counts: Counter[tuple[str, str]] = Counter()
        for block in self.blocks.values():
            if block.state is not BlockState.CANCELLED:
                counts[block.plan, block.domain] += 1
        for (of_plan, of_domain), count in counts.items():
            if plan in (None, of_plan) and domain in (None, of_domain):
                yield self.grants[of_plan, of_domain].fact.event, count
        for recovery in self.recovered.values():
            for charge in recovery.charges:
                if plan in (None, charge.plan) and domain in (None, charge.domain):
                    yield charge.event, charge.blocks

    def missing_charges(self, seen_size: int) -> tuple[Charge, ...]:
        """What a recovery must charge at least when others have seen ``seen_size`` entries.

        Each missing entry can have started one block; a fork may have replaced every entry. No plan can have run
        more blocks than its grant allowed.
        """
        gap = seen_size - self.size if seen_size > self.size else seen_size
        return tuple(
            Charge(domain=domain, plan=plan, event=grant.fact.event, blocks=min(gap, grant.left))
            for (plan, domain), grant in sorted(self.grants.items())
            if grant.left and not self.domains[domain].closed
        )

    def _domain(self, name: str) -> Domain:
        if name not in self.domains:
            raise _not_allowed(f"this site has no data domain '{name}'")
        return self.domains[name]

    def _price(self, domain: str, event: DpEvent) -> int:
        """Units that one block of ``event`` takes; 0 in a domain without a budget, and of what officers have waived."""
        order = self._domain(domain).fact.order
        if order is None or isinstance(event, Unprotected):
            return 0
        try:
            return cost(event, order)
        except UsageError as error:
            raise NotAllowed(error.message, error.hint) from None

    def _charge(self, plan: str, domain: str, blocks: int) -> None:
        grant = self.grants[plan, domain]
        self.grants[plan, domain] = replace(grant, used=grant.used + blocks)
        self._spend(plan, domain, grant.price * blocks, blocks)

    def _spend(self, plan: str, domain: str, units: int, blocks: int) -> None:
        self.domains[domain] = replace(self.domains[domain], spent=self.domains[domain].spent + units)
        self.charged[plan] += blocks

    def _move(self, fact: Start | Cancel | Release | Abandon) -> Block:
        block = self.blocks[fact.block]
        block = replace(block, state=TRANSITIONS[block.state, fact.kind])
        self.blocks[fact.block] = block
        return block

    def _recover(self, fact: Recover) -> None:
        for charge in fact.charges:
            self._spend(
                charge.plan, charge.domain, self._price(charge.domain, charge.event) * charge.blocks, charge.blocks
            )
            grant = self.grants.get((charge.plan, charge.domain))
            if grant is not None:
                self.grants[charge.plan, charge.domain] = replace(grant, used=grant.used + charge.blocks)
        self.recovered[fact.seen_size, fact.seen_root] = fact
        self.sums.forgotten |= {(plan, number) for plan, numbers in self.answered.items() for number in numbers}

    def _check_officers(self, fact: Officers) -> None:
        before = self.officers
        if fact.version != (1 if before is None else before.version + 1):
            raise _not_allowed(f"version {fact.version} of the list of officers does not follow the one before")
        if before is not None:
            self._check_approved(fact, min(EYES_TO_RECOVER, len(before.officers)))

    def _check_domain(self, fact: OpenDomain) -> None:
        if fact.domain in self.domains:
            raise NotAllowed(
                f"the data domain '{fact.domain}' is open already",
                "its delta and cap are fixed for ever; use another name for another patient population",
            )
        if fact.epsilon_cap is None:
            if self.protected or fact.order is not None:
                raise _not_allowed(f"the data domain '{fact.domain}' has no budget: only a simulation opens such a one")
            return
        try:
            order = fixed_order(fact.epsilon_cap, fact.delta)
        except UsageError as error:
            raise NotAllowed(error.message, error.hint) from None
        if fact.order != order:
            raise _not_allowed(f"the filter of the data domain '{fact.domain}' is of order {fact.order}, not {order}")
        self._check_approved(fact, 1)

    def _check_waive(self, fact: Waive) -> None:
        if self._domain(fact.domain).closed:
            raise _not_allowed(f"the data domain '{fact.domain}' is closed")
        if (fact.plan, fact.domain) in self.waived:
            raise _not_allowed("this plan was waived on this data domain already")
        self._check_approved(fact, EYES_TO_WAIVE)

    def _check_grant(self, fact: Grant) -> None:
        before = self.grants.get((fact.plan, fact.domain))
        if self._domain(fact.domain).closed:
            raise _not_allowed(f"the data domain '{fact.domain}' is closed")
        if fact.version != (1 if before is None else before.fact.version + 1):
            raise _not_allowed(f"version {fact.version} of the grant does not follow the one before")
        if before is not None and fact.event != before.fact.event:
            raise _not_allowed("a plan has one event for ever, and this grant names another")
        if isinstance(fact.event, Unprotected):
            # In a simulation's domain without a budget nothing is promised that could be waived.
            if self._domain(fact.domain).fact.order is not None and (fact.plan, fact.domain) not in self.waived:
                raise _not_allowed("a plan without differential privacy needs a waiver of two officers first")
        elif self._domain(fact.domain).fact.order is not None:
            self._price(fact.domain, fact.event)
        self._check_approved(fact, 1)

    def _check_reserve(self, fact: Reserve) -> None:
        if (None, fact.kind) not in TRANSITIONS or fact.block in self.blocks:
            raise _not_admitted(f"block '{fact.block}' was reserved before")
        if (fact.plan, fact.domain, fact.round_number) in self.current:
            # Two blocks of one round could both be released: two answers, with noise of their own, for one charge each.
            raise _not_admitted(f"another attempt at round {fact.round_number} is under way or was answered")
        domain = self.domains.get(fact.domain)
        if domain is None:
            raise _not_admitted(f"this site has no data domain '{fact.domain}'")
        if domain.closed:
            raise _not_admitted(f"the data domain '{fact.domain}' is closed")
        grant = self.grants.get((fact.plan, fact.domain))
        if grant is None:
            raise _not_admitted("no officer has granted this plan anything on this data domain")
        if fact.event != grant.fact.event:
            raise _not_admitted("the round's event is not the one that the officer granted")
        if not grant.left:
            raise _not_admitted(f"the plan has used the {grant.fact.blocks} rounds that the officer granted")
        waived = isinstance(fact.event, Unprotected)
        if domain.allowance is not None and domain.fact.order is not None and not waived:
            answer = fits(domain.spent, grant.price, domain.allowance, domain.fact.order)
            if isinstance(answer, Refused):
                raise _not_admitted(answer.reason)

    def _check_move(self, fact: Start | Cancel | Release | Abandon) -> None:
        block = self.blocks.get(fact.block)
        state = None if block is None else block.state
        if block is None or (state, fact.kind) not in TRANSITIONS:
            raise _wrong_move(fact.block, state, fact.kind)
        if isinstance(fact, Start) and self.domains[block.domain].closed:
            raise _not_admitted(f"the data domain '{block.domain}' is closed")
        if isinstance(fact, Release) and fact.attempt in block.attempts:
            raise _not_allowed(f"block '{fact.block}' has released its answer to attempt {fact.attempt} already")

    def _check_recover(self, fact: Recover) -> None:
        if (fact.seen_size, fact.seen_root) in self.recovered:
            raise _not_allowed("this head was recovered from already")
        for charge in fact.charges:
            self._price(charge.domain, charge.event)
        charged = Counter[tuple[str, str]]()
        for charge in fact.charges:
            grant = self.grants.get((charge.plan, charge.domain))
            if grant is not None and charge.event != grant.fact.event:
                raise _not_allowed("a charge names another event than the plan's grant")
            charged[charge.plan, charge.domain] += charge.blocks
        for least in self.missing_charges(fact.seen_size):
            if charged[least.plan, least.domain] < least.blocks:
                raise _not_allowed(
                    f"a recovery from head {fact.seen_size} charges at least {least.blocks} blocks of plan "
                    f"{least.plan[:16]} on '{least.domain}'"
                )
        self._check_approved(fact, EYES_TO_RECOVER)

    def _check_approved(self, fact: Approved, needed: int) -> None:
        """Enough distinct officers of the present list have signed. A simulation has no officers."""
        if self.opened is None or self.opened.key is None:
            return
        known = {} if self.officers is None else self.officers.officers
        message = approval_message(self.opened.key, fact)
        signers = set()
        for approval in fact.approvals:
            if known.get(approval.officer) != approval.key:
                raise _not_allowed(f"'{approval.officer}' with this key is no officer of this site")
            officer = PublicIdentity(approval.officer, bytes.fromhex(approval.key))
            if not officer.verifies(bytes.fromhex(approval.signature), message):
                raise _not_allowed(f"the signature of officer '{approval.officer}' does not belong to this entry")
            signers.add(approval.key)
        if len(signers) < needed:
            raise _not_allowed(f"an entry of kind '{fact.kind}' needs the signatures of {needed} officers")


def repeated(events: Iterable[tuple[DpEvent, int]]) -> list[DpEvent]:
    """Events for the accountant: one whose steps are those of all its repetitions."""
    return [
        event.model_copy(update={"steps": event.steps * count})
        if isinstance(event, PoissonGaussian)
        else event.model_copy(update={"releases": event.releases * count})
        for event, count in events
    ]


def _not_allowed(reason: str) -> NotAllowed:
    return NotAllowed(reason, "ask the data governance officer; nothing was written")


def _not_admitted(reason: str) -> NotAdmitted:
    return NotAdmitted(reason, "nothing was charged; the data governance officer can say what is left")


def _wrong_move(block: str, state: BlockState | None, kind: str) -> NotAllowed:
    return NotAllowed(
        f"block '{block}' is {state or 'unknown'}: '{kind}' is not possible now",
        "a block is reserved once, then started or cancelled, then released or abandoned",
    )
