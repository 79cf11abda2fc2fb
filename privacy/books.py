"""What the facts of a privacy ledger add up to: budgets, grants, blocks, and questions about them.

Data and reading only. What officers may sign is in ``approvals``, which fact may come next in ``ledger``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from wardround.privacy.budget import cost
from wardround.privacy.sums import SumState
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, PoissonGaussian, TreeGaussian, Unprotected
from wardround.protocol.ledger import BlockState, Charge, Grant, Officers, OpenDomain, OpenLedger, Recover, Waive


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
    """A round of a plan on a domain as the ledger sees it now; ``attempts``: for which it released an answer.

    ``ticks``: of a campaign, which is one block in so many parts (``Books.parts``), its ``round_number`` the first that
    was asked for; 0: one round.
    """

    name: str
    domain: str
    plan: str
    round_number: int
    state: BlockState
    attempts: tuple[int, ...] = ()
    ticks: int = 0


@dataclass(frozen=True, slots=True)
class Suspension:
    """An officer's key that was lost or stolen. ``entry``: the number of the ledger's entry that says so."""

    officer: str
    key: str
    reason: str
    note: str
    entry: int


@dataclass(slots=True)
class Books:
    """Everything that the first ``size`` facts of a ledger say.

    ``grants`` is by (plan, domain), ``recovered`` by the head that was lost, ``charged`` counts blocks by plan,
    ``answered`` holds the rounds of a plan that were released, ``started_without`` the opted-out patients by block,
    ``countersigned`` the size that each witness signed last, ``current`` the one block of a plan's round on a domain
    that is neither cancelled nor abandoned, ``parts`` holds the (tick, attempt) that the block of a campaign has
    released, ``ended`` the campaigns' blocks during which entries were lost, ``waived`` the plans that may run on a
    domain without differential privacy, ``sums`` what was signed and opened under secure aggregation, ``named`` every
    officer's key that there ever was with its name, ``suspended`` those of them that were lost or stolen.
    """

    size: int = 0
    opened: OpenLedger | None = None
    officers: Officers | None = None
    named: dict[str, str] = field(default_factory=dict)
    suspended: dict[str, Suspension] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    grants: dict[tuple[str, str], Allotment] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    recovered: dict[tuple[int, str], Recover] = field(default_factory=dict)
    charged: Counter[str] = field(default_factory=Counter)
    answered: dict[str, set[int]] = field(default_factory=dict)
    started_without: dict[str, int] = field(default_factory=dict)
    current: dict[tuple[str, str, int], str] = field(default_factory=dict)
    parts: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    countersigned: dict[str, int] = field(default_factory=dict)
    waived: dict[tuple[str, str], Waive] = field(default_factory=dict)
    sums: SumState = field(default_factory=SumState)

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

    def campaign(self, plan: str, domain: str) -> Block | None:
        """The block of a campaign of indicators that goes on; None: nothing is charged for it yet."""
        found = (self.blocks[name] for (of, on, _), name in self.current.items() if (of, on) == (plan, domain))
        return next((block for block in found if block.ticks), None)

    def has_released(self, block: str, round_number: int, attempt: int) -> bool:
        """Whether an answer to this attempt at the round, or tick, was released from ``block``, abandoned or not."""
        held = self.blocks[block]
        if held.ticks:
            return (round_number, attempt) in self.parts.get(block, ())
        return held.round_number == round_number and attempt in held.attempts

    def _domain(self, name: str) -> Domain:
        if name not in self.domains:
            raise not_allowed(f"this site has no data domain '{name}'")
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


def parts_of(event: DpEvent) -> int:
    """The ticks in which a block of ``event`` is released, if it is a campaign; 0: it is one round."""
    if isinstance(event, TreeGaussian):
        return event.ticks
    return event.releases if isinstance(event, Unprotected) and event.releases > 1 else 0


def repeated(events: Iterable[tuple[DpEvent, int]]) -> list[DpEvent]:
    """Events for the accountant: one whose steps are those of all its repetitions."""
    return [
        event.model_copy(update={"steps": event.steps * count})
        if isinstance(event, PoissonGaussian)
        else event.model_copy(update={"releases": event.releases * count})
        for event, count in events
    ]


def without_waived(events: Iterable[tuple[DpEvent, int]]) -> tuple[list[tuple[DpEvent, int]], int]:
    """(the events that an epsilon covers, how many releases officers have waived)."""
    counted: list[tuple[DpEvent, int]] = []
    waived = 0
    for event, count in events:
        if isinstance(event, Unprotected):
            waived += count
        else:
            counted.append((event, count))
    return counted, waived


def not_allowed(reason: str) -> NotAllowed:
    return NotAllowed(reason, "ask the data governance officer; nothing was written")


def not_admitted(reason: str) -> NotAdmitted:
    return NotAdmitted(reason, "nothing was charged; the data governance officer can say what is left")
