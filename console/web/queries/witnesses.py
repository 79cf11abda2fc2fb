"""Who has signed which head of this site's ledger, and whose ledgers this site has signed. Reads only.

A countersignature says: whoever signed it will not sign another history of the same length. It covers the entries up
to its size, and none behind.
"""

from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Final

from wardround.client.store.keys import fingerprint
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.record import Cosigned
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.witness import checkpoint_of

MOST_SHOWN: Final = 50
"""Countersignatures that a page lists; the newest."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who signs heads of this ledger: the newest one, and how many there are."""

    signer: str
    key: str
    size: int
    at: str
    times: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest head of another site's ledger that this site has signed."""

    origin: str
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A head of this ledger that ``witness`` holds and that the file does not continue. An alarm."""

    witness: str
    size: int
    root: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class WitnessView:
    """Everything that the page shows, at one moment; ``entries``: how many the ledger has."""

    entries: int
    witnesses: tuple[Witness, ...]
    cosigned: tuple[Cosigned, ...]
    seen: tuple[Seen, ...]
    unmatched: tuple[Unmatched, ...]


def witness_view(books: Books, store: Connection, site: str) -> WitnessView:
    """Who has witnessed what; call it under ``LedgerReader.read``."""
    cosigned = books.record.cosigned
    newest: dict[tuple[str, str], Witness] = {}
    for one in cosigned:
        held = newest.get((one.signer, one.key)) or Witness(one.signer, one.key, 0, "", 0)
        size, at = max((held.size, held.at), (one.size, one.at))
        newest[one.signer, one.key] = Witness(one.signer, one.key, size, at, held.times + 1)
    return WitnessView(
        entries=books.state.size,
        witnesses=tuple(replace(one, key=fingerprint(bytes.fromhex(one.key))) for _, one in sorted(newest.items())),
        cosigned=tuple(reversed(cosigned[-MOST_SHOWN:])),
        seen=_seen(store),
        unmatched=tuple(
            Unmatched(witness, size, root, (size, root) in books.state.recovered)
            for size, root, witness in store.execute(
                "SELECT size, root, witness FROM rollbacks WHERE site = ? ORDER BY size", (site,)
            )
        ),
    )


def _seen(store: Connection) -> tuple[Seen, ...]:
    found = []
    for origin, note in store.execute("SELECT origin, note FROM witnessed ORDER BY origin"):
        try:
            head = checkpoint_of(bytes(note), origin).head
        except ProtocolViolation:
            continue
        found.append(Seen(origin, head.size, head.root.hex()))
    return tuple(found)
