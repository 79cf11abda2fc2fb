"""The privacy ledger of a site: an append-only chain of facts in SQLite, and the sums that admission needs.

Facts are the truth; the tables ``domains`` and ``blocks`` are sums over them, kept in the same transaction so that two
processes can never both take the last of a budget (``BEGIN IMMEDIATE`` serialises writers). A reservation is durable
when ``reserve`` returns: only then may a batch be drawn.

A simulation uses this same code on one database in memory, with a ledger per site in it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.privacy.budget import Refused, may_spend
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import (
    GENESIS,
    TRANSITIONS,
    Abandon,
    BlockState,
    Cancel,
    Fact,
    OpenDomain,
    Refuse,
    Release,
    Reserve,
    Start,
    chain_hash,
    fact_bytes,
    parse_fact,
)

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS entries (site TEXT NOT NULL, counter INTEGER NOT NULL, content BLOB NOT NULL,
       hash TEXT NOT NULL, PRIMARY KEY (site, counter)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS domains (site TEXT NOT NULL, domain TEXT NOT NULL, "order" INTEGER,
       allowance INTEGER, spent INTEGER NOT NULL, PRIMARY KEY (site, domain)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS blocks (site TEXT NOT NULL, block TEXT NOT NULL, plan TEXT NOT NULL,
       domain TEXT NOT NULL, state TEXT NOT NULL, cost INTEGER NOT NULL, PRIMARY KEY (site, block)) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block as the ledger sees it now."""

    name: str
    domain: str
    state: BlockState


def open_store(path: Path | None, content: bytes | None = None) -> Connection:
    """The SQLite database at ``path``, or one in memory (None). Files: WAL and fsync on every commit.

    ``content`` fills a database in memory with what ``store_bytes`` gave: a simulation that is resumed.
    """
    store = sqlite3.connect(":memory:" if path is None else path, isolation_level=None, timeout=30.0)
    if content is not None:
        store.deserialize(content)
    if path is not None:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = FULL")
    for statement in _SCHEMA:
        store.execute(statement)
    return store


def store_bytes(store: Connection) -> bytes:
    """A database in memory as the bytes of an SQLite file."""
    return store.serialize()


class Ledger:
    """The ledger of one site. Every public method that writes is one durable transaction."""

    def __init__(self, store: Connection, site: str) -> None:
        self._store = store
        self.site = site

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction that takes the write lock at its start, so that what it reads stays true until it ends."""
        try:
            self._store.execute("BEGIN IMMEDIATE")
            yield
            self._store.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"the ledger of site '{self.site}' cannot be written: {error}",
                "nothing was charged and nothing is trained; free the disk or the file's permissions and try again",
            ) from error
        finally:
            if self._store.in_transaction:
                self._store.execute("ROLLBACK")

    def open_domain(self, fact: OpenDomain, allowance: int | None) -> None:
        """Give a patient population its budget, once. ``allowance`` is in units of 1e-12 at the domain's order."""
        with self._transaction():
            if self._domain(fact.domain) is not None:
                raise UsageError(
                    f"the data domain '{fact.domain}' of site '{self.site}' is open already",
                    "its delta and cap are fixed for ever; use another name for another patient population",
                )
            self._append(fact)
            self._store.execute(
                "INSERT INTO domains VALUES (?, ?, ?, ?, 0)", (self.site, fact.domain, fact.order, allowance)
            )

    def reserve(self, block: str, domain: str, plan: str, round_number: int, event: DpEvent) -> Refused | None:
        """Charge ``event`` to ``domain`` before anything is drawn; a refusal charges nothing."""
        with self._transaction():
            row = self._domain(domain)
            if row is None:
                return Refused(f"site '{self.site}' has no data domain '{domain}'")
            order, allowance, spent = row
            cost = 0
            if order is not None and allowance is not None:
                answer = may_spend(spent, event, allowance, order)
                if isinstance(answer, Refused):
                    return answer
                cost = answer.spent - spent
            self._move(block, "reserve", plan, domain, cost)
            self._append(Reserve(domain=domain, block=block, plan=plan, round_number=round_number, event=event))
        return None

    def start(self, block: str) -> None:
        """From here on patients may be drawn, and the charge can no longer be given back."""
        self._follow(block, Start(block=block))

    def cancel(self, block: str) -> None:
        """Give back a charge of which nothing was drawn."""
        self._follow(block, Cancel(block=block))

    def release(self, block: str, content: str) -> None:
        """Note the hash of what leaves, before it leaves."""
        self._follow(block, Release(block=block, content=content))

    def abandon(self, block: str) -> None:
        """End a block of which nothing left; its charge stays."""
        self._follow(block, Abandon(block=block))

    def refuse(self, plan: str, round_number: int, reason: str) -> None:
        """Note that a request was refused, and why."""
        with self._transaction():
            self._append(Refuse(plan=plan, round_number=round_number, reason=reason))

    def recover(self) -> None:
        """After a crash: cancel what never started, abandon what may have drawn patients."""
        for block in self.blocks():
            if block.state is BlockState.RESERVED:
                self.cancel(block.name)
            elif block.state is BlockState.RUNNING:
                self.abandon(block.name)

    def blocks(self) -> list[Block]:
        """Every block, in the order of their names."""
        rows = self._store.execute(
            "SELECT block, domain, state FROM blocks WHERE site = ? ORDER BY block", (self.site,)
        )
        return [Block(name, domain, BlockState(state)) for name, domain, state in rows]

    def facts(self) -> list[Fact]:
        """Every entry in order, after checking the chain. Raises UsageError where the chain is broken."""
        rows = self._store.execute(
            "SELECT counter, content, hash FROM entries WHERE site = ? ORDER BY counter", (self.site,)
        )
        facts, previous = [], GENESIS
        for expected, (counter, content, stored) in enumerate(rows, start=1):
            if counter != expected or chain_hash(previous, counter, content) != stored:
                raise UsageError(
                    f"the ledger of site '{self.site}' is broken at entry {expected}",
                    "it was changed or restored in part: keep the file and ask the data governance officer",
                )
            facts.append(parse_fact(content))
            previous = stored
        return facts

    def events(self, plan: str | None = None) -> list[DpEvent]:
        """Every event that counts (not cancelled), of one plan or of all, in order of reservation."""
        facts = self.facts()
        cancelled = {fact.block for fact in facts if isinstance(fact, Cancel)}
        return [
            fact.event
            for fact in facts
            if isinstance(fact, Reserve) and fact.block not in cancelled and plan in (None, fact.plan)
        ]

    def released_rounds(self, plan: str) -> set[int]:
        """The rounds of a plan that were answered: they are answered once, across restarts."""
        released = {block.name for block in self.blocks() if block.state is BlockState.RELEASED}
        reserved = [fact for fact in self.facts() if isinstance(fact, Reserve)] if released else []
        return {fact.round_number for fact in reserved if fact.plan == plan and fact.block in released}

    def charged(self, plan: str) -> int:
        """Number of blocks of a plan that count against a budget."""
        row = self._store.execute(
            "SELECT count(*) FROM blocks WHERE site = ? AND plan = ? AND state <> ?",
            (self.site, plan, BlockState.CANCELLED.value),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def used(self, domain: str) -> tuple[int, int | None]:
        """(spent, allowance) of a domain in units of 1e-12 at its order; allowance None: without protection."""
        row = self._domain(domain)
        if row is None:
            raise UsageError(f"site '{self.site}' has no data domain '{domain}'", "open it first")
        return row[2], row[1]

    def _domain(self, domain: str) -> tuple[int | None, int | None, int] | None:
        row = self._store.execute(
            'SELECT "order", allowance, spent FROM domains WHERE site = ? AND domain = ?', (self.site, domain)
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def _follow(self, block: str, fact: Start | Cancel | Release | Abandon) -> None:
        with self._transaction():
            self._move(block, fact.kind)
            self._append(fact)

    def _move(self, block: str, kind: str, plan: str = "", domain: str = "", cost: int = 0) -> None:
        row = self._store.execute(
            "SELECT state, domain, cost FROM blocks WHERE site = ? AND block = ?", (self.site, block)
        ).fetchone()
        before = None if row is None else BlockState(row[0])
        if (before, kind) not in TRANSITIONS:
            raise UsageError(
                f"block '{block}' of site '{self.site}' is {before or 'unknown'}: '{kind}' is not possible now",
                "a block is reserved once, then started or cancelled, then released or abandoned",
            )
        after = TRANSITIONS[before, kind]
        if row is None:
            self._store.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)",
                (self.site, block, plan, domain, after.value, cost),
            )
        else:
            domain, cost = row[1], -row[2] if after is BlockState.CANCELLED else 0
            self._store.execute(
                "UPDATE blocks SET state = ? WHERE site = ? AND block = ?", (after.value, self.site, block)
            )
        if cost:
            self._store.execute(
                "UPDATE domains SET spent = spent + ? WHERE site = ? AND domain = ?",
                (cost, self.site, domain),
            )

    def _append(self, fact: Fact) -> None:
        row = self._store.execute(
            "SELECT counter, hash FROM entries WHERE site = ? ORDER BY counter DESC LIMIT 1", (self.site,)
        ).fetchone()
        counter, previous = (1, GENESIS) if row is None else (row[0] + 1, row[1])
        content = fact_bytes(fact)
        self._store.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)",
            (self.site, counter, content, chain_hash(previous, counter, content)),
        )
