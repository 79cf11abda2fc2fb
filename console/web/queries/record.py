"""A ledger's entries as the audit log searches them: an index that is folded once, in memory, beside the books.

A search looks at every entry from the newest on, compares texts as they stand (no pattern, no SQL), and stops after
``MOST_SECONDS``: then it says how far it came. The tree over all entries is kept too, so that a proof needs no reading.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Final, TypeAlias

from wardround.client.store.studies import Studies
from wardround.console.paper.excerpt import belongs
from wardround.privacy.books import Block
from wardround.protocol.entry import DatedFact, Entry
from wardround.protocol.ledger import Countersign, Inquiry, Officers, OpenLedger, OpenSum
from wardround.protocol.tree import Tree

PAGE: Final = 50
"""Entries on a page."""

MOST_SECONDS: Final = 0.12
MOST_TERMS: Final = 8
MOST_LETTERS: Final = 200
SHORTEST_DIGEST: Final = 4
"""Hex digits from which on a term is taken for the beginning of a plan's digest too."""

_CLOCK_EVERY: Final = 2_000
"""Entries between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Line:
    """What an entry is found by. ``text``: what people wrote into it, casefolded; ``round_number``: of its block."""

    number: int
    at: str
    kind: str
    domain: str
    plan: str
    officers: tuple[str, ...]
    round_number: int | None
    text: str


Fit: TypeAlias = Callable[[list[Line]], list[Line]]
"""Leaves of some entries those that a filter or a word of a search admits, in their order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A search: every word of ``text`` and every filter that is not empty must fit. Days are ISO 8601, both within."""

    text: str = ""
    kind: str = ""
    plan: str = ""
    domain: str = ""
    since: str = ""
    until: str = ""

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(self.text[:MOST_LETTERS].casefold().split()[:MOST_TERMS])


@dataclass(frozen=True, slots=True)
class Found:
    """The entries of one page. ``searched``: how many entries were looked at; ``cut``: there are older ones."""

    lines: tuple[Line, ...]
    total: int
    searched: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Cosigned:
    """Entry ``number`` holds the signature of ``signer`` over the first ``size`` entries. ``key`` and root in hex."""

    number: int
    at: str
    signer: str
    key: str
    size: int
    root: str


@dataclass(slots=True)
class Record:
    """The index. ``names``: (name, title) of a plan by its digest, of the studies that the site has heard of."""

    lines: list[Line] = field(default_factory=list)
    tree: Tree = field(default_factory=Tree)
    kinds: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    plans: set[str] = field(default_factory=set)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    cosigned: list[Cosigned] = field(default_factory=list)

    def take(self, entry: Entry, dated: DatedFact, blocks: Mapping[str, Block]) -> None:
        """Take the next entry, whose place in the chain was checked; ``blocks`` are those behind it."""
        fact = dated.fact
        domain, plan = belongs(fact, blocks)
        block = blocks.get(getattr(fact, "block", ""))
        officers = tuple(one.officer for one in getattr(fact, "approvals", ()))
        line = Line(
            number=entry.number,
            at=dated.at,
            kind=fact.kind,
            domain=domain or "",
            plan=plan or "",
            officers=officers,
            round_number=block.round_number if block else None,
            text=" ".join((fact.kind, domain or "", *officers, *_written(fact))).casefold(),
        )
        self.lines.append(line)
        self.tree.append(entry.content)
        self.kinds.add(line.kind)
        self.domains |= {line.domain} - {""}
        self.plans |= {line.plan} - {""}
        if isinstance(fact, Countersign):
            self.cosigned.append(Cosigned(entry.number, dated.at, fact.signer, fact.key, fact.size, fact.root))

    def learn(self, store: Connection) -> None:
        """Read the names of studies that are new in the file."""
        for (digest,) in store.execute("SELECT digest FROM studies"):
            if digest not in self.names and (held := Studies(store).get(digest)) is not None:
                self.names[digest] = held.plan.study, held.plan.title

    def search(
        self,
        wanted: Wanted,
        page: int,
        kind_words: Callable[[str], str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Found:
        """The page ``page`` (from 1) of what fits, the newest first. ``kind_words``: a kind in the reader's words."""
        first, last = (page - 1) * PAGE, page * PAGE
        if wanted == Wanted():
            size = len(self.lines)
            return Found(tuple(self.lines[max(0, size - last) : max(0, size - first)][::-1]), size, size, False)
        fits = [*_filters(wanted), *(self._meant(term, kind_words) for term in wanted.terms)]
        found: list[Line] = []
        total, end, until = 0, len(self.lines), clock() + MOST_SECONDS
        while end:
            if clock() > until:
                return Found(tuple(found), total, len(self.lines) - end, True)
            begin = max(0, end - _CLOCK_EVERY)
            left = self.lines[begin:end]
            for fit in fits:
                left = fit(left)
            left.reverse()
            found += left[max(0, first - total) : max(0, last - total)]
            total, end = total + len(left), begin
        return Found(tuple(found), total, len(self.lines), False)

    def _meant(self, term: str, kind_words: Callable[[str], str]) -> Fit:
        """What a word of a search leaves: entries that have it, or whose plan or kind is meant by it."""
        digest = len(term) >= SHORTEST_DIGEST and not set(term) - set("0123456789abcdef")
        plans = {one for one in self.plans if digest and one.startswith(term)}
        plans |= {one for one, names in self.names.items() if any(term in name.casefold() for name in names)}
        kinds = {kind for kind in self.kinds if term in kind_words(kind).casefold()}
        return lambda lines: [one for one in lines if one.kind in kinds or one.plan in plans or term in one.text]


def _written(fact: object) -> Iterable[str]:
    """The words of people and the names in a fact; no hash and no key."""
    yield from (str(text) for name in ("reason", "block", "wrong") if (text := getattr(fact, name, "")))
    match fact:
        case OpenLedger():
            yield fact.site
        case Officers():
            yield from fact.officers
        case OpenSum():
            yield from fact.sites
        case Countersign():
            yield fact.signer
        case Inquiry():
            yield fact.officer


def _filters(wanted: Wanted) -> Iterable[Fit]:
    kind, plan, domain, since, until = wanted.kind, wanted.plan, wanted.domain, wanted.since, wanted.until
    if kind:
        yield lambda lines: [one for one in lines if one.kind == kind]
    if plan:
        yield lambda lines: [one for one in lines if one.plan == plan]
    if domain:
        yield lambda lines: [one for one in lines if one.domain == domain]
    if since:
        yield lambda lines: [one for one in lines if one.at[:10] >= since]
    if until:
        yield lambda lines: [one for one in lines if one.at[:10] <= until]
