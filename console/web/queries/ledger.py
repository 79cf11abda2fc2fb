"""A site's ledger as the console reads it: opened for reading only, folded once, and then only the new entries.

Every entry's place in the chain is checked when it is folded, as the daemon does, and never again: a page of a ledger
with 100,000 entries costs what its new entries cost. The signatures of all entries are what ``ledger verify`` checks.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.client.store.database import explained, open_copy
from wardround.client.store.fold import Fold, Misfit
from wardround.client.store.ledger import stored_entries
from wardround.console.web.queries.leaving import Leaving
from wardround.console.web.queries.record import Record
from wardround.console.web.queries.spending import Spendings
from wardround.protocol.entry import DatedFact, Entry
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Grant, Release, SetClock

DATABASE: Final = "ledger.sqlite"


@dataclass(slots=True)
class Books(Fold):
    """A ledger, and besides what pages ask of its history. Read it under ``LedgerReader.read`` only.

    ``granted``: the number of each plan's last grant on a domain; ``released_at``: the time of the last release;
    ``record``: every entry, to be searched and proved; ``spendings``: what was charged, and when;
    ``leaving``: what left; ``clock_set_at``: when an officer last let time begin
    again.
    """

    granted: dict[tuple[str, str], int] = field(default_factory=dict)
    released_at: str = ""
    record: Record = field(default_factory=Record)
    spendings: Spendings = field(default_factory=Spendings)
    leaving: Leaving = field(default_factory=Leaving)
    clock_set_at: str = ""

    def take(self, entry: Entry) -> DatedFact:
        dated = Fold.take(self, entry)
        self.record.take(entry, dated, self.state.blocks)
        if isinstance(dated.fact, Grant):
            self.granted[dated.fact.plan, dated.fact.domain] = entry.number
        elif isinstance(dated.fact, Release):
            self.released_at = dated.at
        elif isinstance(dated.fact, SetClock):
            self.clock_set_at = dated.at
        self.spendings.take(entry.number, dated, self.state)
        self.leaving.take(entry.number, dated, self.state)
        return dated

    def like_last(self, domain: str) -> tuple[int, int] | None:
        """(price of a round in units, rounds) of the grant that was signed last on ``domain`` and is not revoked."""
        of = [(number, plan) for (plan, name), number in self.granted.items() if name == domain]
        for _, plan in sorted(of, reverse=True):
            grant = self.state.grants[plan, domain]
            if grant.fact.blocks and grant.price:
                return grant.price, grant.fact.blocks
        return None


class LedgerReader:
    """Reads the ledger of ``site`` in the folder ``path``. May be used from any thread."""

    def __init__(self, path: Path, site: str) -> None:
        self._path = path / DATABASE
        self.site = site
        self._lock = threading.Lock()
        self._books = Books()

    @contextmanager
    def read(self) -> Iterator[tuple[Books, Connection]]:
        """The books as the file says now, and the file. Others wait meanwhile, so leave soon.

        Raises:
            UsageError: the ledger is broken; the page of that error says where.
            Unavailable: the file cannot be read now.
        """
        with self._lock, closing(open_copy(self._path)) as store, explained("the ledger"):
            self._catch_up(store)
            yield self._books, store

    def _catch_up(self, store: Connection) -> None:
        if not self._continues(store):
            self._books = Books()
        books = self._books
        try:
            for entry in stored_entries(store, self.site, books.state.size):
                books.take(entry)
            books.check_signature()
        except Misfit as misfit:
            self._books = Books()
            raise UsageError(
                f"the ledger is broken at {misfit}",
                "keep the file as it is, and run 'wardround ledger verify': it says what is wrong",
            ) from None

    def _continues(self, store: Connection) -> bool:
        """Whether the file still begins with what was folded: it may have been put back from a backup meanwhile."""
        last = self._books.last
        if last is None:
            return True
        row = store.execute(
            "SELECT hash, signature FROM entries WHERE site = ? AND number = ?", (self.site, last.number)
        ).fetchone()
        return row is not None and (bytes(row[0]), bytes(row[1])) == (last.hash, last.signature)
