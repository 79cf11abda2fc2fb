"""A ledger's entries as the audit log searches them: an index that is folded once, in memory, beside the books.

A search looks at every entry from the newest on, compares texts as they stand (no pattern, no SQL), and stops after
``MOST_SECONDS``: then it says how far it came. The tree over all entries is kept too, so that a proof needs no reading.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Final

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

_CLOCK_EVERY: Final = 1_000


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
        terms = [self._meant(term, kind_words) for term in wanted.terms]
        first, last = (page - 1) * PAGE, page * PAGE
        found: list[Line] = []
        total, searched, until = 0, 0, clock() + MOST_SECONDS
        for line in reversed(self.lines):
            if searched % _CLOCK_EVERY == 0 and clock() > until:
                return Found(tuple(found), total, searched, True)
            searched += 1
            if _fits(line, wanted) and all(_says(line, *term) for term in terms):
                if first <= total < last:
                    found.append(line)
                total += 1
        return Found(tuple(found), total, searched, False)

    def _meant(self, term: str, kind_words: Callable[[str], str]) -> tuple[str, frozenset[str], frozenset[str]]:
        """(term, plans, kinds) that a word of a search may mean."""
        digest = len(term) >= SHORTEST_DIGEST and not set(term) - set("0123456789abcdef")
        plans = {one for one in self.plans if digest and one.startswith(term)}
        plans |= {one for one, names in self.names.items() if any(term in name.casefold() for name in names)}
        return term, frozenset(plans), frozenset(kind for kind in self.kinds if term in kind_words(kind).casefold())


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


def _fits(line: Line, wanted: Wanted) -> bool:
    return (
        (not wanted.kind or line.kind == wanted.kind)
        and (not wanted.plan or line.plan == wanted.plan)
        and (not wanted.domain or line.domain == wanted.domain)
        and (not wanted.since or line.at[:10] >= wanted.since)
        and (not wanted.until or line.at[:10] <= wanted.until)
    )


def _says(line: Line, term: str, plans: frozenset[str], kinds: frozenset[str]) -> bool:
    return term in line.text or line.plan in plans or line.kind in kinds
