"""The budget page: what every study has spent of a data domain, over time and now, what is still granted, what is left.

Shares are of the filter's allowance and add up. Epsilons do not: each is the accountant's, of its own events.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.console.web.queries.epsilons import Epsilons
from wardround.console.web.queries.ledger import Books, LedgerReader
from wardround.console.web.queries.paging import Part, newest
from wardround.console.web.queries.plans import PlanFacts, Plans
from wardround.console.web.queries.spending import Account
from wardround.console.web.queries.timeline import Timeline, timeline
from wardround.privacy.books import Domain, without_waived
from wardround.protocol.entry import DatedFact, parse_content
from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import BlockState, Recover, Reserve
from wardround.protocol.plan import PrivacyMode

MOST_STUDIES: Final = 50
"""Rows of the table of studies, those that have spent most."""

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Promise:
    """An epsilon with what it may not be shown without; ``epsilon`` None: the accountant's own check failed."""

    domain: str
    epsilon: float | None
    delta: float
    consortium: bool


@dataclass(frozen=True, slots=True)
class StudySpending:
    """One plan on one domain.

    ``spent`` in units; ``rounds`` that count, ``waived`` of them without privacy; ``states`` of its blocks. ``left``
    rounds are granted and not used. ``promise``: its epsilon, None where there is nothing that one covers; ``others``:
    of the same study on the other curve, in mode dist.
    """

    plan: PlanFacts
    spent: int
    rounds: int
    waived: int
    recovered: int
    states: Counter[BlockState]
    left: int
    granted: int
    price: int
    promise: Promise | None
    others: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where the filter stands if every round that is granted and not yet used runs. An upper bound.

    ``granted``: units that those rounds take; ``spent`` with them, at most the allowance. ``fits``: whether the filter
    admits them all. ``rounds_left`` and ``studies_left`` like the last one after that; None: no study to compare with.
    """

    rounds: int
    studies: int
    granted: int
    spent: int
    fits: bool
    rounds_left: int | None
    studies_left: int | None


@dataclass(frozen=True, slots=True)
class DomainBudget:
    """A data domain. Amounts are the filter's units at its fixed ``order``; ``key`` names it in an address.

    ``timeline``: only where a whole domain is asked for.
    """

    name: str
    key: str
    order: int
    cap: float
    delta: float
    allowance: int
    spent: int
    closed: bool
    consortium: bool
    promise: Promise | None
    waived: int
    states: Counter[BlockState]
    recovered: int
    rounds_left: int | None
    studies_left: int | None
    forecast: Forecast
    studies: tuple[StudySpending, ...]
    more_studies: int
    timeline: Timeline | None


@dataclass(frozen=True, slots=True)
class Charge:
    """An entry that charged rounds: a block, or a recovery, which has no ``block`` ("") and no state."""

    number: int
    at: str
    block: str
    round_number: int
    rounds: int
    state: BlockState | None
    units: int


@dataclass(frozen=True, slots=True)
class StudyCharges:
    """A study's charges on a domain, in pages."""

    domain: DomainBudget
    study: StudySpending
    charges: Part[Charge]


@dataclass(frozen=True, slots=True)
class EntryLine:
    """An entry as it is in the file: ``hash`` in hex."""

    number: int
    dated: DatedFact
    hash: str


@dataclass(frozen=True, slots=True)
class ChargeDetail:
    """One charge, down to the mechanism's event; ``entries``: every entry of its block."""

    domain: DomainBudget
    plan: PlanFacts
    charge: Charge
    event: DpEvent
    entries: tuple[EntryLine, ...]


class BudgetQueries:
    """Budgets of one site's ledger; what is not there is None. Methods raise WardroundError as the ledger does."""

    def __init__(self, ledger: LedgerReader, epsilons: Epsilons, plans: Plans) -> None:
        self._ledger = ledger
        self._epsilons = epsilons
        self._plans = plans
        self._timelines: dict[str, tuple[bytes, Timeline | None]] = {}

    def names(self) -> list[str]:
        """The keys of the domains that have a budget."""
        with self._ledger.read() as (books, _):
            return [_key(books, name) for name, domain in sorted(books.state.domains.items()) if domain.allowance]

    def domains(self) -> list[DomainBudget]:
        """Every domain that has a budget."""
        found = (self.domain(key) for key in self.names())
        return [one for one in found if one is not None]

    def domain(self, key: str) -> DomainBudget | None:
        """The domain that ``key`` names."""
        with self._ledger.read() as (books, store):
            read = _Reading.of(books, store, self._plans, key)
            shown = None if read is None else self._timeline(books, read.name)
        return None if read is None else self._budget(read, shown)

    def study(self, key: str, plan: str, page: int) -> StudyCharges | None:
        """The charges of ``plan`` on a domain."""
        with self._ledger.read() as (books, store):
            read = _Reading.of(books, store, self._plans, key, plan)
            account = None if read is None else books.spendings.accounts.get((read.name, plan))
            if read is None or account is None:
                return None
            part = newest(account.charges, page)
            entries = _entries(store, self._ledger.site, part.items)
            charges = [_charge(books, read.name, plan, entries[number]) for number in part.items]
        budget = self._budget(read)
        study = next(one for one in budget.studies if one.plan.digest == plan)
        return StudyCharges(budget, study, part.with_items(charges))

    def charge(self, key: str, plan: str, number: int) -> ChargeDetail | None:
        """The charge that entry ``number`` made for ``plan`` on a domain."""
        with self._ledger.read() as (books, store):
            read = _Reading.of(books, store, self._plans, key, plan)
            account = None if read is None else books.spendings.accounts.get((read.name, plan))
            if read is None or account is None or number not in account.charges:
                return None
            entry = _entries(store, self._ledger.site, [number])[number]
            fact = entry.dated.fact
            numbers = books.spendings.blocks[fact.block].numbers if isinstance(fact, Reserve) else [number]
            entries = _entries(store, self._ledger.site, numbers)
            charge, event = _charge(books, read.name, plan, entry), _event(fact, read.name, plan)
            facts = self._plans.of(store, plan)
        return ChargeDetail(self._budget(read), facts, charge, event, tuple(entries[one] for one in numbers))

    def _timeline(self, books: Books, name: str) -> Timeline | None:
        """Kept until the ledger has another last entry: many studies over many years have many days."""
        last = books.last.hash if books.last else b""
        kept = self._timelines.get(name)
        if kept is None or kept[0] != last:
            by_day = {plan: account.by_day for plan, account in books.spendings.of(name)}
            kept = self._timelines[name] = last, timeline(by_day, books.last_at)
        return kept[1]

    def _budget(self, read: "_Reading", shown: Timeline | None = None) -> DomainBudget:
        """Outside the ledger's lock: only here are epsilons computed."""
        fact, domain = read.domain.fact, read.domain
        assert domain.allowance is not None and fact.epsilon_cap is not None and fact.order is not None
        counted, waived = without_waived(event for study in read.every for event in study.events)
        fit, studies = _fit(domain.allowance - domain.spent, read.like, domain.closed)
        return DomainBudget(
            name=read.name,
            key=read.key,
            order=fact.order,
            cap=fact.epsilon_cap,
            delta=fact.delta,
            allowance=domain.allowance,
            spent=domain.spent,
            closed=domain.closed,
            consortium=read.name == CONSORTIUM_DOMAIN,
            promise=self._promise((read.name,), counted, fact.delta) if counted else None,
            waived=waived,
            states=sum((study.states for study in read.every), Counter[BlockState]()),
            recovered=sum(study.recovered for study in read.every),
            rounds_left=fit,
            studies_left=studies,
            forecast=_forecast(domain, read),
            studies=tuple(self._study(study, read) for study in read.shown),
            more_studies=len(read.every) - len(read.shown),
            timeline=shown,
        )

    def _study(self, study: "_Copied", read: "_Reading") -> StudySpending:
        counted, waived = without_waived(study.events)
        delta = read.domain.fact.delta
        return StudySpending(
            plan=study.facts,
            spent=study.spent,
            rounds=sum(count for _, count in study.events),
            waived=waived,
            recovered=study.recovered,
            states=study.states,
            left=study.left,
            granted=study.granted,
            price=study.price,
            promise=self._promise((read.name, study.plan), counted, delta) if counted else None,
            others=tuple(
                self._promise((name, study.plan), events, other)
                for name, other, all_events in study.others
                if (events := without_waived(all_events)[0])
            ),
        )

    def _promise(self, key: tuple[str, ...], events: list[tuple[DpEvent, int]], delta: float) -> Promise:
        return Promise(key[0], self._epsilons.of(key, events, delta), delta, key[0] == CONSORTIUM_DOMAIN)


@dataclass(frozen=True, slots=True)
class _Copied:
    """A plan's account as it was under the lock."""

    plan: str
    facts: PlanFacts
    spent: int
    events: tuple[tuple[DpEvent, int], ...]
    states: Counter[BlockState]
    recovered: int
    left: int
    granted: int
    price: int
    others: tuple[tuple[str, float, tuple[tuple[DpEvent, int], ...]], ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Everything of one domain that a page needs, copied under the lock. ``shown``: the studies that are listed."""

    name: str
    key: str
    domain: Domain
    like: tuple[int, int] | None
    every: tuple[_Copied, ...]
    shown: tuple[_Copied, ...]

    @classmethod
    def of(cls, books: Books, store: Connection, plans: Plans, key: str, only: str = "") -> "_Reading | None":
        name = next((name for name in books.state.domains if _key(books, name) == key), None)
        if name is None or not books.state.domains[name].allowance:
            return None
        every = sorted(_copied(books, store, plans, name), key=lambda one: (-one.spent, one.plan))
        shown = [one for one in every if one.plan == only] if only else every[:MOST_STUDIES]
        return cls(name, key, books.state.domains[name], books.like_last(name), tuple(every), tuple(shown))


def _copied(books: Books, store: Connection, plans: Plans, name: str) -> Iterator[_Copied]:
    """Every plan that was charged on the domain, or may be."""
    accounts = dict(books.spendings.of(name))
    granted = {plan: grant for (plan, on), grant in books.state.grants.items() if on == name}
    for plan in {*accounts, *granted}:
        account, grant = accounts.get(plan, Account()), granted.get(plan)
        facts = plans.of(store, plan)
        yield _Copied(
            plan,
            facts,
            account.spent,
            _events(account),
            +account.states,
            account.recovered,
            grant.left if grant else 0,
            grant.fact.blocks if grant else 0,
            grant.price if grant else 0,
            tuple(_other_curves(books, name, plan)) if facts.mode is PrivacyMode.DIST else (),
        )


def _other_curves(books: Books, name: str, plan: str) -> Iterator[tuple[str, float, tuple[tuple[DpEvent, int], ...]]]:
    """(domain, delta, events) of the same study on the consortium's curve, or seen from there on the patients' own."""
    for (domain, of), account in books.spendings.accounts.items():
        if of == plan and domain != name and CONSORTIUM_DOMAIN in (domain, name):
            yield domain, books.state.domains[domain].fact.delta, _events(account)


def _events(account: Account) -> tuple[tuple[DpEvent, int], ...]:
    return tuple((event, count) for event, count in account.events.items() if count)


def _forecast(domain: Domain, read: _Reading) -> Forecast:
    assert domain.allowance is not None
    open_ = [] if domain.closed else [study for study in read.every if study.left]
    granted = sum(study.left * study.price for study in open_)
    spent = domain.spent + granted
    fit, studies = _fit(domain.allowance - spent, read.like, domain.closed)
    return Forecast(
        rounds=sum(study.left for study in open_),
        studies=len(open_),
        granted=granted,
        spent=min(spent, domain.allowance),
        fits=spent <= domain.allowance,
        rounds_left=fit,
        studies_left=studies,
    )


def _fit(left: int, like: tuple[int, int] | None, closed: bool) -> tuple[int | None, int | None]:
    """(rounds, whole studies) like the last one that ``left`` units hold."""
    if like is None or closed:
        return None, None
    price, rounds = like
    fit = max(0, left) // price
    return fit, fit // rounds


def _key(books: Books, name: str) -> str:
    """A domain's name where it can stand in an address, else the number of the entry that opened it."""
    return name if _SAFE.fullmatch(name) else f"~{books.spendings.opened[name]}"


def _entries(store: Connection, site: str, numbers: "list[int] | tuple[int, ...]") -> dict[int, EntryLine]:
    marks = ",".join("?" * len(numbers))
    rows = store.execute(
        f"SELECT number, content, hash FROM entries WHERE site = ? AND number IN ({marks})", (site, *numbers)
    )
    return {number: EntryLine(number, parse_content(content), hash_.hex()) for number, content, hash_ in rows}


def _charge(books: Books, name: str, plan: str, entry: EntryLine) -> Charge:
    fact = entry.dated.fact
    if isinstance(fact, Reserve):
        price = books.state.grants[plan, name].price
        state = books.spendings.blocks[fact.block].state
        units = 0 if state is BlockState.CANCELLED else price
        return Charge(entry.number, entry.dated.at, fact.block, fact.round_number, 1, state, units)
    assert isinstance(fact, Recover)
    rounds = sum(one.blocks for one in fact.charges if (one.domain, one.plan) == (name, plan))
    grant = books.state.grants.get((plan, name))
    return Charge(entry.number, entry.dated.at, "", 0, rounds, None, rounds * grant.price if grant else 0)


def _event(fact: object, name: str, plan: str) -> DpEvent:
    """The mechanism's event that an entry charged."""
    if isinstance(fact, Reserve):
        return fact.event
    assert isinstance(fact, Recover)
    return next(one.event for one in fact.charges if (one.domain, one.plan) == (name, plan))
