"""The privacy ledger of a site: an append-only chain of signed entries in SQLite.

The entries are the only truth. What they add up to (``privacy.books``) is kept in memory and caught up inside the
transaction that writes (``BEGIN IMMEDIATE`` serialises writers), so that two processes can never both take the last of
a budget. An entry is on disk when the method that writes it returns: only then may a batch be drawn.

A simulation uses this same code on one database in memory, with a ledger per site in it, without keys.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection
from typing import Final

from wardround.client.store.database import explained
from wardround.client.store.fold import Fold, Misfit
from wardround.privacy.books import Block, NotAdmitted
from wardround.privacy.budget import Refused
from wardround.privacy.ledger import LedgerState
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.entry import (
    DatedFact,
    Entry,
    content_bytes,
    misdated,
    next_entry,
    parse_content,
)
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.events import DpEvent
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import Abandon, BlockState, Cancel, Fact, OpenLedger, Reserve, SetClock
from wardround.protocol.tree import Head, Proof, Tree
from wardround.protocol.witness import checkpoint_of, countersignature

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far a clock may be set back without a refusal; the entry then carries the time of the one before."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The ledger of one site. Every public method that writes is one durable transaction.

    Args:
        store: from ``open_store``.
        identity: the site's key. None: a simulation, whose entries are not signed.
        clock: the time of day, UTC.

    Raises:
        UsageError: the ledger is broken, or belongs to another key.
    """

    def __init__(
        self, store: Connection, site: str, identity: Identity | None = None, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.site = site
        self._store = store
        self._identity = identity
        self._clock = clock
        self._fold = Fold()
        self._state = self._fold.state
        self._tree: Tree | None = None
        key = None if identity is None else identity.public.key.hex()
        opened = self.state.opened
        if opened is None:
            self.record(OpenLedger(site=site, key=key))
        elif opened.key != key:
            raise UsageError(
                f"the ledger of site '{site}' was begun with another key", "use the key that lies in the site's folder"
            )

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    @property
    def entries(self) -> int:
        """How many there are, as far as ``state`` was asked for."""
        return 0 if self._fold.last is None else self._fold.last.number

    @property
    def state(self) -> LedgerState:
        """What the entries add up to now, those of other processes included. Read it, never change it."""
        with explained(f"the ledger of site '{self.site}'"):
            self._catch_up()
        return self._state

    def record(self, *facts: Fact, also: Callable[[Connection], None] | None = None) -> None:
        """Append facts that do not depend on one another: all of them or none.

        ``also`` writes beside them in the same transaction.

        Raises:
            NotAllowed: a fact may not come next; nothing was written.
            Unavailable: the disk is full or read-only, or the clock was set back; nothing was written.
        """
        with self._transaction():
            for fact in facts:
                self._state.check(fact)
            self._append(facts, also)

    def reserve(self, *facts: Reserve) -> Refused | None:
        """Charge a round to every domain that it touches, or to none; a refusal charges nothing."""
        if len({fact.domain for fact in facts}) != len(facts):
            raise ValueError("a round is charged once to a domain")
        with self._transaction():
            if (size := self._missing()) is not None:
                return Refused(
                    f"others have seen {size} entries of this ledger that this file does not hold: it was restored "
                    "from an older copy, and two officers must sign a recovery"
                )
            try:
                for fact in facts:
                    self._state.check(fact)
            except NotAdmitted as refusal:
                return Refused(refusal.message)
            self._append(facts, None)
        return None

    def recover(self, plan: str) -> None:
        """After a crash, by the one process that works on ``plan``: settle what that plan left open.

        What never started is cancelled; what may have drawn patients is abandoned and stays charged. A campaign that
        has started goes on: nothing of a tick leaves before it is written down, so there is nothing to give up.
        """
        with self._transaction():
            open_ = [self._state.blocks[name] for (of, _, _), name in self._state.current.items() if of == plan]
            facts: list[Fact] = [Cancel(block=block.name) for block in open_ if block.state is BlockState.RESERVED]
            facts += [
                Abandon(block=block.name) for block in open_ if block.state is BlockState.RUNNING and not block.ticks
            ]
            if facts:
                self._append(tuple(facts), None)

    def rolled_back(self, seen: Head, witness: str) -> bool:
        """Note that ``witness`` holds this site's signature over ``seen``; True when this file does not continue it.

        From then on every reservation is refused, until a ``Recover`` entry names that head.
        """
        tree = self.tree()
        if seen.size <= tree.size and tree.head(seen.size) == seen:
            return False
        if (seen.size, seen.root.hex()) in self.state.recovered:
            return False
        with self._transaction():
            self._store.execute(
                "INSERT OR IGNORE INTO rollbacks VALUES (?, ?, ?, ?)", (self.site, seen.size, seen.root.hex(), witness)
            )
        return True

    def missing_head(self) -> int | None:
        """Entries that others have seen and this file does not hold, until a ``Recover`` entry names them; or None."""
        with explained(f"the ledger of site '{self.site}'"):
            self._catch_up()
            return self._missing()

    def checkpoint(self) -> bytes:
        """The signed checkpoint of the ledger as it is now. Raises UsageError in a simulation, which has no key."""
        return Checkpoint(self.site, self.tree().head()).note().signed_by(self._key()).encode()

    def offer(self, since: int) -> tuple[bytes, Proof]:
        """(checkpoint, proof that it continues the first ``since`` entries), for a witness that has signed these."""
        checkpoint, tree = self.checkpoint(), self.tree()
        return checkpoint, tree.consistency(since, checkpoint_of(checkpoint, self.site).head.size)

    def countersign(self, note: bytes, witness: PublicIdentity) -> None:
        """Keep a witness's signature under this ledger's checkpoint ``note``.

        Raises:
            ProtocolViolation: ``note`` is not a checkpoint of this ledger that the witness has signed.
        """
        fact = countersignature(note, self._key().public, witness)
        if fact.size > self.tree().size or self.tree().head(fact.size).root.hex() != fact.root:
            raise ProtocolViolation(witness.site, "it signed a head that this ledger never had")
        self.record(fact)

    def tree(self) -> Tree:
        """The Merkle tree over the contents, for heads and proofs."""
        with explained(f"the ledger of site '{self.site}'"):
            self._catch_up()
            if self._tree is None:
                self._tree = Tree()
            rows = self._store.execute(
                "SELECT content FROM entries WHERE site = ? AND number > ? AND number <= ? ORDER BY number",
                (self.site, self._tree.size, self._state.size),
            )
            for (content,) in rows:
                self._tree.append(content)
        return self._tree

    def facts(self) -> list[Fact]:
        """Every fact in order."""
        return [parse_content(entry.content).fact for entry in stored_entries(self._store, self.site)]

    def blocks(self) -> list[Block]:
        """Every block, in the order of their names."""
        return sorted(self.state.blocks.values(), key=lambda block: block.name)

    def events(self, plan: str | None = None) -> list[DpEvent]:
        """Every event that counts, of one plan or of all, once for each block."""
        return [event for event, count in self.state.events(plan=plan) for _ in range(count)]

    def charged(self, plan: str, domain: str | None = None) -> int:
        """Number of blocks of a plan that count against a budget: of one domain, or of all together."""
        if domain is None:
            return self.state.charged[plan]
        grant = self.state.grants.get((plan, domain))
        return 0 if grant is None else grant.used

    def used(self, domain: str) -> tuple[int, int | None]:
        """(spent, allowance) of a domain in units of 1e-12 at its order; allowance None: without protection."""
        known = self.state.domains.get(domain)
        if known is None:
            raise UsageError(f"site '{self.site}' has no data domain '{domain}'", "open it first")
        return known.spent, known.allowance

    def _key(self) -> Identity:
        if self._identity is None:
            raise UsageError("a simulation's ledger has no key to sign with", "only a hospital's ledger is signed")
        return self._identity

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction that takes the write lock at its start, so that what it reads stays true until it ends."""
        with explained(f"the ledger of site '{self.site}'"):
            try:
                self._store.execute("BEGIN IMMEDIATE")
                self._catch_up()
                yield
                if self._store.in_transaction:
                    self._store.execute("COMMIT")
            finally:
                if self._store.in_transaction:
                    self._store.execute("ROLLBACK")

    def _append(self, facts: tuple[Fact, ...], also: Callable[[Connection], None] | None) -> None:
        """Write and commit; the state follows only what is on disk."""
        at, last, entries = self._now(facts), self._fold.last, []
        for fact in facts:
            last = next_entry(last, content_bytes(at, fact), self._identity)
            entries.append((self.site, last.number, last.content, last.signature, last.hash))
        self._store.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entries)
        if also is not None:
            also(self._store)
        self._store.execute("COMMIT")
        assert last is not None
        self._fold.wrote(facts, last, at)

    def _now(self, facts: tuple[Fact, ...]) -> str:
        now = self._clock()
        at = _text(now)
        if not any(misdated(DatedFact(at=at, fact=fact), self._fold.last_at) for fact in facts):
            return at
        if any(isinstance(fact, SetClock) for fact in facts):
            raise UsageError(
                f"the last entry is not of the time that was signed, but of {self._fold.last_at}", "sign anew"
            )
        if _text(now + CLOCK_TOLERANCE) < self._fold.last_at:
            raise Unavailable(
                f"the clock says {at}, but the ledger of site '{self.site}' was last written at {self._fold.last_at}",
                "set the clock right (NTP) and try again; what was charged before stays charged. If it was wrong when "
                "the last entry was written, an officer signs an entry 'set_clock'",
            )
        return self._fold.last_at

    def _catch_up(self) -> None:
        """Take the entries that this or another process has written since. The newest signature stands for all."""
        try:
            for entry in stored_entries(self._store, self.site, self._state.size):
                self._fold.take(entry)
            self._fold.check_signature()
        except Misfit as misfit:
            raise UsageError(
                f"the ledger of site '{self.site}' is broken at {misfit}",
                "it was changed or restored in part: keep the file and ask the data governance officer",
            ) from misfit

    def _missing(self) -> int | None:
        rows = self._store.execute("SELECT size, root FROM rollbacks WHERE site = ?", (self.site,)).fetchall()
        open_ = [size for size, root in rows if (size, root) not in self._state.recovered]
        return max(open_, default=None)


def stored_entries(store: Connection, site: str, after: int = 0) -> Iterator[Entry]:
    """The entries of a site's ledger behind number ``after``, in order, unchecked."""
    rows = store.execute(
        "SELECT number, content, signature, hash FROM entries WHERE site = ? AND number > ? ORDER BY number",
        (site, after),
    )
    for number, content, signature, hash_ in rows:
        yield Entry(number, content, signature, hash_)


def time_of(store: Connection, site: str, number: int) -> str:
    """When entry ``number`` of a site's ledger was written, UTC."""
    return parse_content(next(stored_entries(store, site, number - 1)).content).at


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
