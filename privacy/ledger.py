"""The rules of a privacy ledger: what its facts add up to, and which fact may come next.

One class for both sides: a site asks it before it writes, and whoever verifies a ledger plays every entry through it
again. It reads no clock and no file; admission to a budget is the filter of ``budget``.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from wardround.privacy.approvals import ApprovedBooks, in_words
from wardround.privacy.books import (
    Allotment,
    Block,
    Domain,
    NotAdmitted,
    NotAllowed,
    Suspension,
    not_admitted,
    not_allowed,
    parts_of,
)
from wardround.privacy.budget import Refused, allowance, fits
from wardround.protocol.events import Unprotected
from wardround.protocol.ledger import (
    TRANSITIONS,
    Abandon,
    BlockState,
    Cancel,
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
    Suspend,
    Waive,
)


@dataclass(slots=True)
class LedgerState(ApprovedBooks):
    """Everything that the first ``size`` facts of a ledger say, and what may be said next."""

    def apply(self, fact: Fact) -> None:
        """Take one more fact. Raises NotAllowed, with the state unchanged, when it may not come next."""
        self.check(fact)
        match fact:
            case OpenLedger():
                self.opened = fact
            case Officers():
                self.officers = fact
                self.named |= {key: name for name, key in fact.officers.items()}
            case Suspend():
                name = self.named[fact.key]
                self.suspended[fact.key] = Suspension(name, fact.key, fact.reason, fact.note, self.size + 1)
            case OpenDomain() if fact.domain in self.domains:
                self.domains[fact.domain] = replace(self.domains[fact.domain], fact=fact)
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
                ticks = parts_of(fact.event)
                self.blocks[fact.block] = Block(
                    fact.block, fact.domain, fact.plan, fact.round_number, BlockState.RESERVED, ticks=ticks
                )
                self.current[fact.plan, fact.domain, fact.round_number] = fact.block
                self._charge(fact.plan, fact.domain, 1)
            case Start():
                self._move(fact)
                self.started_without[fact.block] = fact.opted_out_at_most
            case Abandon():
                block = self._move(fact)
                self.answered.get(block.plan, set()).discard(block.round_number)
                for tick, _ in self.parts.get(block.name, ()):
                    self.answered[block.plan].discard(tick)
                del self.current[block.plan, block.domain, block.round_number]
            case Cancel():
                block = self._move(fact)
                del self.current[block.plan, block.domain, block.round_number]
                self._charge(block.plan, block.domain, -1)
            case Release():
                block = self._move(fact)
                if fact.round_number is None:
                    self.blocks[fact.block] = replace(block, attempts=(*block.attempts, fact.attempt))
                else:
                    self.parts.setdefault(fact.block, set()).add((fact.round_number, fact.attempt))
                self.answered.setdefault(block.plan, set()).add(fact.round_number or block.round_number)
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
            raise not_allowed("a ledger begins with one entry that names its site, and has no second one")
        match fact:
            case Officers():
                self._check_officers(fact)
            case Suspend():
                self._check_suspend(fact)
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
                    raise not_allowed(fault)
                if gone := self.plan_suspended_by(fact.plan):
                    raise _waits(gone)
            case Close():
                if self._domain(fact.domain).closed:
                    raise not_allowed(f"the data domain '{fact.domain}' is closed already")
                self._check_approved(fact, 1)
            case Recover():
                self._check_recover(fact)
            case Countersign():
                if fact.size > self.size:
                    raise not_allowed(f"entry {fact.size} does not exist, so nobody can have countersigned it")
            case SetClock():
                self._check_approved(fact, 1)
            case Inquiry():
                key = None if self.officers is None else self.officers.officers.get(fact.officer)
                if self.protected and (key is None or key in self.suspended):
                    raise not_allowed(f"'{fact.officer}' is no officer of this site, or the key is suspended")
            case OpenLedger() | Refuse():
                pass
            case _:
                assert_never(fact)

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
        # Ticks may have left in the entries that are lost: another release of them has no charge.
        self.ended |= {block.name for block in self.blocks.values() if block.ticks}
        self.sums.forgotten |= {(plan, number) for plan, numbers in self.answered.items() for number in numbers}

    def _check_reserve(self, fact: Reserve) -> None:
        if (None, fact.kind) not in TRANSITIONS or fact.block in self.blocks:
            raise not_admitted(f"block '{fact.block}' was reserved before")
        if self.campaign(fact.plan, fact.domain) is not None:
            raise not_admitted("the campaign is charged, once and whole")
        if (fact.plan, fact.domain, fact.round_number) in self.current:
            # Two blocks of one round could both be released: two answers, with noise of their own, for one charge each.
            raise not_admitted(f"another attempt at round {fact.round_number} is under way or was answered")
        domain = self.domains.get(fact.domain)
        if domain is None:
            raise not_admitted(f"this site has no data domain '{fact.domain}'")
        if domain.closed:
            raise not_admitted(f"the data domain '{fact.domain}' is closed")
        grant = self.grants.get((fact.plan, fact.domain))
        if grant is None:
            raise not_admitted("no officer has granted this plan anything on this data domain")
        if fact.event != grant.fact.event:
            raise not_admitted("the round's event is not the one that the officer granted")
        if gone := self.suspended_by(fact.plan, fact.domain):
            raise _waits(gone)
        if not grant.left:
            raise not_admitted(f"the plan has used the {grant.fact.blocks} rounds that the officer granted")
        waived = isinstance(fact.event, Unprotected)
        if domain.allowance is not None and domain.fact.order is not None and not waived:
            answer = fits(domain.spent, grant.price, domain.allowance, domain.fact.order)
            if isinstance(answer, Refused):
                raise not_admitted(answer.reason)

    def _check_move(self, fact: Start | Cancel | Release | Abandon) -> None:
        block = self.blocks.get(fact.block)
        state = None if block is None else block.state
        if block is None or (state, fact.kind) not in TRANSITIONS:
            raise _wrong_move(fact.block, state, fact.kind)
        if isinstance(fact, Start) and self.domains[block.domain].closed:
            raise not_admitted(f"the data domain '{block.domain}' is closed")
        if isinstance(fact, Start | Release) and (gone := self.suspended_by(block.plan, block.domain)):
            raise _waits(gone)
        if isinstance(fact, Release):
            self._check_release(fact, block)

    def _check_release(self, fact: Release, block: Block) -> None:
        if (fact.round_number is not None) is not bool(block.ticks):
            raise not_allowed("a campaign is released tick by tick, and no other block in parts")
        if fact.round_number is not None and fact.round_number > block.ticks:
            raise not_allowed(f"block '{fact.block}' was charged for {block.ticks} ticks")
        if fact.block in self.ended:
            raise not_allowed("entries were lost while the campaign ran, and ticks may have left in them: it is over")
        if block.ticks and (self.domains[block.domain].closed or not self.grants[block.plan, block.domain].fact.blocks):
            raise not_allowed("the campaign was revoked, or its data domain is closed")
        before = fact.attempt in block.attempts
        if before or (fact.round_number, fact.attempt) in self.parts.get(fact.block, ()):
            raise not_allowed(f"block '{fact.block}' has released its answer to attempt {fact.attempt} already")


def _waits(gone: tuple[Suspension, ...]) -> NotAdmitted:
    return not_admitted(f"the plan rests on {in_words(gone)}, and waits to be signed again")


def _wrong_move(block: str, state: BlockState | None, kind: str) -> NotAllowed:
    return NotAllowed(
        f"block '{block}' is {state or 'unknown'}: '{kind}' is not possible now",
        "a block is reserved once, then started or cancelled, then released or abandoned",
    )
