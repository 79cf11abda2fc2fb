"""Who has signed which head of this site's ledger, whose ledgers this site has signed, and alarms. Reads only.

A countersignature says: whoever signed it will not sign another history of the same length. It covers the entries up
to its size, and none behind.
"""

from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Final

from wardround.client.store.keys import fingerprint
from wardround.client.store.witnessing import alarms_in, signed_when
from wardround.console.web.queries.alarms import AlarmLine, alarm_line, ordered
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.record import Cosigned
from wardround.protocol.alarm import parse_alarm
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.witness import checkpoint_of

MOST_SHOWN: Final = 50
"""Countersignatures that a page lists; the newest."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who signs heads of this ledger: the newest one, and how many there are.

    ``continued``: whether the file as it is now begins with all that was signed.
    """

    signer: str
    key: str
    size: int
    at: str
    times: int
    continued: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest head of another site's ledger that this site has signed. ``at``: UTC; "": not known."""

    origin: str
    size: int
    root: str
    at: str


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
    alarms: tuple[AlarmLine, ...]


def witness_view(books: Books, store: Connection, site: str) -> WitnessView:
    """Who has witnessed what; call it under ``LedgerReader.read``."""
    cosigned = books.record.cosigned
    roots = {(one.key, one.size): one.root for one in cosigned}
    newest: dict[tuple[str, str], Witness] = {}
    for one in cosigned:
        held = newest.get((one.signer, one.key)) or Witness(one.signer, one.key, 0, "", 0, True)
        size, at = max((held.size, held.at), (one.size, one.at))
        newest[one.signer, one.key] = Witness(one.signer, one.key, size, at, held.times + 1, True)
    unmatched = tuple(
        Unmatched(witness, size, root, (size, root) in books.state.recovered)
        for size, root, witness in store.execute(
            "SELECT size, root, witness FROM rollbacks WHERE site = ? ORDER BY size", (site,)
        )
    )
    lost = {one.witness for one in unmatched if not one.recovered}
    return WitnessView(
        entries=books.state.size,
        witnesses=tuple(
            replace(one, key=fingerprint(bytes.fromhex(one.key)), continued=_continued(books, one, roots, lost))
            for _, one in sorted(newest.items())
        ),
        cosigned=tuple(reversed(cosigned[-MOST_SHOWN:])),
        seen=_seen(store),
        unmatched=unmatched,
        alarms=ordered(
            alarm_line(parse_alarm(one.content, site), one.since, one.answered, site) for one in alarms_in(store, site)
        ),
    )


def _continued(books: Books, one: Witness, roots: dict[tuple[str, int], str], lost: set[str]) -> bool:
    """Whether the tree over the entries, computed anew up to the signed size, has the root that was signed."""
    return one.signer not in lost and books.record.tree.head(one.size).root.hex() == roots[one.key, one.size]


def _seen(store: Connection) -> tuple[Seen, ...]:
    found, times = [], signed_when(store)
    for origin, note in store.execute("SELECT origin, note FROM witnessed ORDER BY origin"):
        try:
            head = checkpoint_of(bytes(note), origin).head
        except ProtocolViolation:
            continue
        found.append(Seen(origin, head.size, head.root.hex(), times.get(origin, "")))
    return tuple(found)
