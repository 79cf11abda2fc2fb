"""What a ledger's events add up to, as a paper says it: budgets, spendings, grants, and what left.

``promised`` is used twice: to write a paper, and to check that the figures of one follow from its events.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.console.paper.model import Budget, Charged, Epsilon, Granted, Left, Spending
from wardround.console.paper.reading import Dated
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.books import repeated, without_waived
from wardround.privacy.ledger import LedgerState
from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import BlockState, OpenDomain, Recover, Release, Reserve

MOST_SPANS = 62
"""Rows of what left: by day, else by month, else by year."""


def in_order(domain: str) -> tuple[bool, str]:
    """Sorts domains: by name, the consortium's curve last, because it is the weaker promise."""
    return domain == CONSORTIUM_DOMAIN, domain


def promised(charges: Iterable[Charged], domain: str, delta: float, colluding: int | None) -> Epsilon | None:
    """The epsilon of so many events on a domain; None where every one of them was waived, so that nothing bounds it."""
    counted, waived = without_waived([(one.event, one.blocks) for one in charges if one.blocks])
    if waived and not counted:
        return None
    return stated(epsilon(repeated(counted), delta) if counted else 0.0, domain, delta, colluding)


def stated(value: float, domain: str, delta: float, colluding: int | None = None) -> Epsilon:
    """``value`` of a domain with its conditions; ``colluding`` is the plan's c, on the consortium's curve."""
    if domain != CONSORTIUM_DOMAIN:
        return Epsilon(rounded_up(value), delta, "everyone")
    return Epsilon(rounded_up(value), delta, "consortium", colluding)


def budgets_of(
    state: LedgerState, period: Sequence[Dated], studies: Mapping[str, str], only: Collection[str] | None = None
) -> tuple[Budget, ...]:
    """Every domain with a budget (or those named ``only``), as it stands in ``state``."""
    found = []
    for name in sorted(state.domains, key=in_order):
        domain = state.domains[name]
        cap, order, allowance = domain.fact.epsilon_cap, domain.fact.order, domain.allowance
        if (only is not None and name not in only) or cap is None or order is None or allowance is None:
            continue
        delta = domain.fact.delta
        spendings = spendings_of(state, name, period, studies)
        charges = [charge for one in spendings for charge in one.charges]
        counted, waived = without_waived([(one.event, one.blocks) for one in charges])
        spent = epsilon(repeated(counted), delta) if counted else 0.0
        found.append(
            Budget(
                domain=name,
                cap=stated(cap, name, delta),
                cap_exact=cap,
                spent=stated(spent, name, delta),
                order=order,
                allowance=allowance,
                used=domain.spent,
                blocks=sum(one.blocks for one in charges),
                without_privacy=waived,
                closed=domain.closed,
                spendings=spendings,
            )
        )
    return tuple(found)


def spendings_of(
    state: LedgerState,
    domain: str,
    period: Sequence[Dated],
    studies: Mapping[str, str],
    colluding: int | None = None,
    plan: str | None = None,
) -> tuple[Spending, ...]:
    """What each plan (or the one ``plan``) has spent of ``domain``, in the order of their digests."""
    within = _charged_within(state, domain, period)
    fact = state.domains[domain].fact
    plans = {block.plan for block in state.blocks.values() if block.domain == domain}
    plans |= {one.plan for fact in state.recovered.values() for one in fact.charges if one.domain == domain}
    found = []
    for name in sorted(plans if plan is None else plans & {plan}):
        charges = _charges(state.events(plan=name, domain=domain))
        if charges:
            promise = promised(charges, domain, fact.delta, colluding)
            found.append(Spending(name, studies.get(name), domain, charges, within[name], promise))
    return tuple(found)


def granted_of(state: LedgerState, plan: str, colluding: int | None) -> tuple[Granted, ...]:
    """What officers let ``plan`` spend, as the last grant for each domain says."""
    found = []
    for (of, domain), grant in sorted(state.grants.items(), key=lambda item: in_order(item[0][1])):
        opened: OpenDomain = state.domains[domain].fact
        if of == plan:
            charge = Charged(grant.fact.event, grant.fact.blocks)
            promise = promised([charge], domain, opened.delta, colluding) if grant.fact.blocks else None
            found.append(Granted(domain, grant.fact.event, grant.fact.blocks, promise))
    return tuple(found)


def left_of(entries: Iterable[Dated], state: LedgerState, plan: str) -> tuple[Left, ...]:
    """The answers of ``plan`` that left, by day, month or year, so that a long study fits on a page.

    An answer that was sent again for a later attempt counts each time: each is a message that left.
    """
    sent: list[tuple[str, int]] = []
    seen: set[tuple[str, int, int]] = set()
    for one in entries:
        fact = one.fact.fact
        if isinstance(fact, Release) and (block := state.blocks[fact.block]).plan == plan:
            # In mode dist a round is charged on two domains, and still is one answer.
            message = (fact.content, block.round_number, fact.attempt)
            if message not in seen:
                seen.add(message)
                sent.append((one.at, block.round_number))
    for length in (len("2026-11-23"), len("2026-11"), len("2026")):
        spans: dict[str, list[int]] = {}
        for at, number in sent:
            spans.setdefault(at[:length], []).append(number)
        if len(spans) <= MOST_SPANS:
            break
    return tuple(Left(span, min(rounds), max(rounds), len(rounds)) for span, rounds in spans.items())


def _charges(events: Iterable[tuple[DpEvent, int]]) -> tuple[Charged, ...]:
    """Equal events together, in the order in which they came."""
    counts: dict[DpEvent, int] = {}
    for event, blocks in events:
        counts[event] = counts.get(event, 0) + blocks
    return tuple(Charged(event, blocks) for event, blocks in counts.items() if blocks)


def _charged_within(state: LedgerState, domain: str, period: Sequence[Dated]) -> Counter[str]:
    """Blocks by plan that entries of the period charged on ``domain``, and that still count."""
    counts: Counter[str] = Counter()
    for one in period:
        fact = one.fact.fact
        if isinstance(fact, Reserve) and fact.domain == domain:
            if state.blocks[fact.block].state is not BlockState.CANCELLED:
                counts[fact.plan] += 1
        elif isinstance(fact, Recover):
            for charge in fact.charges:
                if charge.domain == domain:
                    counts[charge.plan] += charge.blocks
    return counts
