"""What the audit log shows: a page of entries in their own JSON, and one entry that is looked at anew.

The index (``record``) says which; the content is read from the file when it is shown.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from wardround.client.store.fold import signed
from wardround.client.store.keys import fingerprint
from wardround.console.web.queries.ledger import LedgerReader
from wardround.console.web.queries.record import Cosigned, Line, Record, Wanted
from wardround.protocol.entry import Entry, chained, parse_content
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import OpenLedger, approval_message
from wardround.protocol.tree import Head, Proof, verify_inclusion


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the log. ``fact`` as in its JSON; ``study``: the name of its plan, or the digest's beginning."""

    line: Line
    fact: dict[str, Any]
    study: str
    hash: str


@dataclass(frozen=True, slots=True)
class LogView:
    """A page of the log, and what can be chosen. ``cut``: the search stopped after ``searched`` of ``entries``."""

    entries: int
    shown: tuple[Shown, ...]
    total: int
    searched: int
    cut: bool
    kinds: tuple[str, ...]
    domains: tuple[str, ...]
    studies: tuple[tuple[str, str], ...]


def log_view(reader: LedgerReader, site: str, wanted: Wanted, page: int, kind_words: Callable[[str], str]) -> LogView:
    """The page ``page`` (from 1) of the entries that are ``wanted``; ``kind_words``: a kind in the reader's words."""
    with reader.read() as (books, store):
        record = books.record
        record.learn(store)
        found = record.search(wanted, page, kind_words)
        facts = _facts(store, site, found.lines)
        return LogView(
            entries=books.state.size,
            shown=tuple(
                Shown(line, facts[line.number][0], _study(record, line.plan), facts[line.number][1])
                for line in found.lines
                if line.number in facts
            ),
            total=found.total,
            searched=found.searched,
            cut=found.cut,
            kinds=tuple(sorted(record.kinds)),
            domains=tuple(sorted(record.domains)),
            studies=tuple((digest, _study(record, digest)) for digest in sorted(record.plans)),
        )


@dataclass(frozen=True, slots=True)
class Signer:
    """An officer's signature on an entry: whose key, and whether it is good for this fact and this ledger."""

    officer: str
    key: str
    good: bool


@dataclass(frozen=True, slots=True)
class WholeEntry:
    """An entry as the file holds it now. ``computed``: its hash from content and entry before, computed now.

    ``proof`` belongs to ``head``, the newest one of the ledger; ``included``: it shows that this content is in there.
    ``covered_by``: the oldest signature of each witness over a head that this entry is part of.
    """

    line: Line
    content: bytes
    hash: str
    computed: str
    site_key: str
    signed: bool
    signers: tuple[Signer, ...]
    head: Head
    proof: Proof
    included: bool
    study: str
    covered_by: tuple[Cosigned, ...]

    @property
    def holds(self) -> bool:
        """Nothing that was looked at is wrong."""
        good = all(one.good for one in self.signers)
        return self.hash == self.computed and self.signed and self.included and good


def whole_entry(reader: LedgerReader, site: str, number: int) -> WholeEntry:
    """Read entry ``number`` from the file and look at it anew. Raises UsageError where there is none."""
    with reader.read() as (books, store):
        books.record.learn(store)
        assert books.state.opened is not None
        return _whole(books.record, store, site, number, books.state.opened)


def _whole(record: Record, store: Connection, site: str, number: int, opened: OpenLedger) -> WholeEntry:
    rows = store.execute(
        "SELECT number, content, signature, hash FROM entries WHERE site = ? AND number IN (?, ?) ORDER BY number",
        (site, number - 1, number),
    ).fetchall()
    entries = {row[0]: Entry(*row) for row in rows}
    entry = entries.get(number)
    if entry is None or number > len(record.lines):
        raise UsageError(
            f"the ledger has no entry {number:,}; it has {len(record.lines):,}", "choose one in the audit log"
        )
    head = record.tree.head()
    proof = record.tree.inclusion(number - 1)
    return WholeEntry(
        line=record.lines[number - 1],
        content=entry.content,
        hash=entry.hash.hex(),
        computed=chained(entries.get(number - 1), number, entry.content).hex(),
        site_key="" if opened.key is None else fingerprint(bytes.fromhex(opened.key)),
        signed=signed(entry, opened),
        signers=_signers(entry.content, opened),
        head=head,
        proof=proof,
        included=verify_inclusion(entry.content, number - 1, proof, head),
        study=_study(record, record.lines[number - 1].plan),
        covered_by=_covering(record, number),
    )


def _facts(store: Connection, site: str, lines: Iterable[Line]) -> dict[int, tuple[dict[str, Any], str]]:
    """(fact as in its JSON, hash) by number, for the lines of a page; what cannot be read is left out."""
    numbers = [line.number for line in lines]
    marks = ",".join("?" * len(numbers))
    rows = store.execute(
        f"SELECT number, content, hash FROM entries WHERE site = ? AND number IN ({marks})", (site, *numbers)
    )
    return {number: (json.loads(content)["fact"], bytes(hash_).hex()) for number, content, hash_ in rows}


def _signers(content: bytes, opened: OpenLedger) -> tuple[Signer, ...]:
    try:
        fact = parse_content(content).fact
    except ValueError:
        return ()
    return tuple(
        Signer(
            one.officer,
            fingerprint(bytes.fromhex(one.key)),
            PublicIdentity(one.officer, bytes.fromhex(one.key)).verifies(
                bytes.fromhex(one.signature),
                approval_message(opened.key or "", fact),  # type: ignore[arg-type]  # only facts that officers sign have any
            ),
        )
        for one in getattr(fact, "approvals", ())
    )


def _study(record: Record, digest: str) -> str:
    return record.names[digest][0] if digest in record.names else digest[:12]


def _covering(record: Record, number: int) -> tuple[Cosigned, ...]:
    found: dict[tuple[str, str], Cosigned] = {}
    for one in record.cosigned:
        if one.size >= number:
            found.setdefault((one.signer, one.key), one)
    return tuple(one for _, one in sorted(found.items()))
