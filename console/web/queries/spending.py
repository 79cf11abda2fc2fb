"""What each plan has done on each data domain, kept up entry by entry: spent by day, rounds by state, entries by block.

Units are the filter's: integers of 1e-12 at the domain's fixed order, which add up. An epsilon does not, so the events
themselves are kept beside them, for the accountant.
"""

from collections import Counter
from dataclasses import dataclass, field

from wardround.privacy.budget import cost
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import DatedFact
from wardround.protocol.events import DpEvent, Unprotected
from wardround.protocol.ledger import Abandon, BlockState, Cancel, OpenDomain, Recover, Release, Reserve, Start


@dataclass(slots=True)
class Account:
    """One plan on one domain.

    ``by_day``: units that were charged on a day (ISO date), less those that were given back on it; ``spent`` is their
    sum. ``events`` counts what stays charged, recoveries included; ``states`` counts blocks. ``charges`` are the
    numbers of the entries that charged something, in order; ``recovered`` are rounds that a recovery charged.
    """

    by_day: Counter[str] = field(default_factory=Counter)
    events: Counter[DpEvent] = field(default_factory=Counter)
    states: Counter[BlockState] = field(default_factory=Counter)
    charges: list[int] = field(default_factory=list)
    recovered: int = 0
    spent: int = 0

    @property
    def rounds(self) -> int:
        """Rounds that count: those of a recovery too, cancelled ones not."""
        return sum(self.events.values())

    def charge(self, day: str, price: int, event: DpEvent, rounds: int) -> None:
        self.by_day[day] += price * rounds
        self.spent += price * rounds
        self.events[event] += rounds


@dataclass(slots=True)
class Trace:
    """A block's entries, by number, and where it stands."""

    numbers: list[int]
    state: BlockState


@dataclass(slots=True)
class Spendings:
    """By (domain, plan), and by block. ``opened`` is the number of the entry that opened each domain."""

    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    blocks: dict[str, Trace] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)

    def take(self, number: int, dated: DatedFact, state: LedgerState) -> None:
        """Follow entry ``number``, which ``state`` has just taken."""
        fact, day = dated.fact, dated.at[:10]
        match fact:
            case OpenDomain():
                self.opened[fact.domain] = number
            case Reserve():
                account = self._account(fact.domain, fact.plan)
                account.charge(day, state.grants[fact.plan, fact.domain].price, fact.event, 1)
                account.states[BlockState.RESERVED] += 1
                account.charges.append(number)
                self.blocks[fact.block] = Trace([number], BlockState.RESERVED)
            case Start() | Cancel() | Release() | Abandon():
                block, trace = state.blocks[fact.block], self.blocks[fact.block]
                account = self._account(block.domain, block.plan)
                account.states[trace.state] -= 1
                account.states[block.state] += 1
                trace.numbers.append(number)
                trace.state = block.state
                if isinstance(fact, Cancel):
                    grant = state.grants[block.plan, block.domain]
                    account.charge(day, grant.price, grant.fact.event, -1)
            case Recover():
                for charge in fact.charges:
                    account = self._account(charge.domain, charge.plan)
                    price = _price(state, charge.domain, charge.event)
                    account.charge(day, price, charge.event, charge.blocks)
                    account.recovered += charge.blocks
                    if number not in account.charges[-1:]:
                        account.charges.append(number)

    def of(self, domain: str) -> list[tuple[str, Account]]:
        """(plan, account) of everything that was ever charged on ``domain``."""
        return [(plan, account) for (name, plan), account in self.accounts.items() if name == domain]

    def _account(self, domain: str, plan: str) -> Account:
        return self.accounts.setdefault((domain, plan), Account())


def _price(state: LedgerState, domain: str, event: DpEvent) -> int:
    """Units of one round of ``event``; 0 where nothing is bounded."""
    order = state.domains[domain].fact.order
    return 0 if order is None or isinstance(event, Unprotected) else cost(event, order)
