"""What a party does with the bulletins that it hears: compare, keep what is open, raise alarms. Knows no database.

Sites and the coordinator run the same rules. For every other ledger a party holds the last statement, and heads that
nobody has shown to belong to it yet. Each statement settles the heads that it proves, accuses its site where a proof
does not fit, and is counted where it is silent about a head: an honest site learns within a cycle of bulletins which
heads others hold, and proves each from then on.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol

from wardround.protocol.alarm import (
    Alarm,
    AlarmKind,
    answered,
    contradicted,
    forked,
    parse_alarm,
    proven,
    raise_alarm,
    went_back,
)
from wardround.protocol.bulletin import MOST_PROOFS, Statement, cycle, parse_bulletin, parse_statement, signed_by
from wardround.protocol.checkpoint import Note, parse_note, verify
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.tree import Head

PATIENCE: Final = 6
"""Statements of a site that may be silent about a head of its ledger."""

MOST_OPEN: Final = 64
"""Heads of one ledger that wait to be shown to belong to it."""

MOST_OF_A_KIND: Final = 4
"""Alarms of one kind on one ledger: more show nothing new."""

MAX_NOTE: Final = 2_000
"""Bytes of a head with its signatures that are kept of it."""


class Memory(Protocol):
    """Durable rows: what this party has heard. ``kind`` is "statement", "head", "own", "alarm", "answer" or
    "missed".
    """

    def get(self, kind: str, key: str) -> bytes | None: ...
    def put(self, kind: str, key: str, content: bytes) -> None: ...
    def drop(self, kind: str, key: str) -> None: ...
    def all(self, kind: str, under: str = "") -> list[tuple[str, bytes]]:
        """Keys that begin with ``under``, sorted, and their contents."""
        ...


@dataclass(slots=True)
class Heard:
    """What a bulletin brought: new alarms, heads of this party's own ledger, ledgers whose lost head was recovered."""

    alarms: list[Alarm] = field(default_factory=list)
    own: list[tuple[Head, str]] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)


class Watch:
    """The rules of one party.

    Args:
        held: the last note that this party has cosigned of a ledger, by the site's name.
        now: UTC as text.
    """

    def __init__(
        self, identity: Identity, memory: Memory, held: Callable[[str], bytes | None], now: Callable[[], str]
    ) -> None:
        self._identity = identity
        self._memory = memory
        self._held = held
        self._now = now

    def hear(self, content: bytes, parties: Mapping[str, PublicIdentity]) -> Heard:
        """Take the bulletin of one of ``parties``.

        Raises:
            ProtocolViolation: it is malformed, or not signed by who it says.
        """
        bulletin, heard = parse_bulletin(content, "a carrier"), Heard()
        statement = bulletin.statement
        party = parties.get(statement.site)
        if party is None or party.site == self._identity.site:
            raise ProtocolViolation(statement.site, "its bulletin came, and the roster does not name it")
        now = signed_by(bulletin, party)
        if self._older(statement, party):
            # What its heads say of others was heard already, or is said again by a newer one.
            self._take_statement(statement, now, party, heard)
            return heard
        name = hashlib.sha256(content).hexdigest().encode()
        if self._memory.get("heard", party.site) == name:
            return heard
        self._memory.put("heard", party.site, name)
        self._take_statement(statement, now, party, heard)
        for text in bulletin.heads:
            self._take_head(text.encode(), party.site, parties, heard)
        for text in bulletin.alarms:
            self._take_alarm(text.encode(), party.site, parties, heard)
        return heard

    def refused(self, note: bytes, party: PublicIdentity) -> Heard:
        """A head of ``party`` that this party was asked to cosign and did not: it waits to be shown to belong there."""
        heard = Heard()
        if _signed(note, party):
            self._compare(_bounded(note, party), party, heard)
        return heard

    def waiting(self) -> list[bytes]:
        """Heads of which their site has said nothing though it spoke: told to others, and so to the site itself."""
        rows = [json.loads(row) for _, row in self._memory.all("head")]
        return [row["note"].encode() for row in rows if row["silent"]]

    def alarms(self) -> list[Alarm]:
        """Every alarm, the oldest first."""
        found = [parse_alarm(content, self._identity.site) for _, content in self._memory.all("alarm")]
        return sorted(found, key=lambda one: (one.at, one.digest))

    def open_alarms(self) -> list[Alarm]:
        """Those that nothing has answered."""
        return [one for one in self.alarms() if self._memory.get("answer", one.digest) is None]

    def to_pass_on(self) -> list[bytes]:
        """What goes into a bulletin: alarms that prove themselves, those without an answer first, then the newest."""
        told = [one for one in self.alarms() if one.kind is not AlarmKind.SILENCE]
        told.sort(key=lambda one: one.at, reverse=True)
        told.sort(key=lambda one: self._memory.get("answer", one.digest) is not None)
        return [one.canonical for one in told]

    def stated(self, statement: Statement) -> None:
        """Keep this party's own statement; where it names a lost head as recovered, that answers the alarm on it."""
        self._memory.put("statement", self._identity.site, statement.canonical)
        self._answer(statement, self._identity.public)

    def own_sizes(self) -> list[int]:
        """Sizes of heads of this party's own ledger that others said they hold."""
        return sorted(int(key) for key, _ in self._memory.all("own"))

    def remember(self, size: int, sites: int) -> None:
        """Others hold the head of this party's own ledger at ``size``: its statements prove it for the next cycles.

        Who hears of a head hears the proof within a cycle, and asks again if it did not.
        """
        count = max((int(content) for _, content in self._memory.all("own")), default=0)
        self._memory.put("own", f"{size:016d}", b"%d" % (count + 1))
        kept = sorted(self._memory.all("own"), key=lambda row: int(row[1]))
        for key, _ in kept[: -min(2 * cycle(sites) + 6, MOST_PROOFS)]:
            self._memory.drop("own", key)

    def missed(self, what: str, party: str, limit: int) -> Alarm | None:
        """Something that ``party`` owed in a round has not come; an alarm once that happened ``limit`` times in a
        row.
        """
        key = f"{what}/{party}"
        count = int(self._memory.get("missed", key) or b"0") + 1
        self._memory.put("missed", key, b"%d" % count)
        return self._silence(what, party) if count >= limit else None

    def spoke(self, what: str, party: str) -> None:
        """It has come: the count begins again, and silence that was noted has its answer."""
        if self._memory.get("missed", f"{what}/{party}") is None:
            return
        self._memory.drop("missed", f"{what}/{party}")
        for alarm in self.open_alarms():
            if alarm.kind is AlarmKind.SILENCE and (alarm.origin, alarm.first) == (party, what):
                self._memory.put("answer", alarm.digest, self._now().encode())

    def _older(self, statement: Statement, party: PublicIdentity) -> bool:
        kept = self._memory.get("statement", party.site)
        last = None if kept is None else _statement_of(kept, party)
        return last is not None and statement.at < last[0].at

    def _take_statement(self, statement: Statement, now: Head, party: PublicIdentity, heard: Heard) -> None:
        kept = self._memory.get("statement", party.site)
        if kept == statement.canonical:
            return
        if kept is not None and (known := _statement_of(kept, party)) is not None:
            before, first = known
            if statement.at < before.at:
                if went_back(statement, now, before, first):
                    self._accuse(AlarmKind.ROLLBACK, party, statement.canonical, before.canonical, heard)
                return
            if went_back(before, first, statement, now):
                self._accuse(AlarmKind.ROLLBACK, party, before.canonical, statement.canonical, heard)
            if forked(first, now) and not statement.excuses(first):
                self._accuse(AlarmKind.FORK, party, before.note.encode(), statement.note.encode(), heard)
        self.spoke("bulletin", party.site)  # a bulletin that is only brought again is none
        self._memory.put("statement", party.site, statement.canonical)
        self._answer(statement, party)
        held = self._held(party.site)
        if held is not None and _signed(held, party):
            head = _head_of(held, party)
            if statement.excuses(head):
                heard.recovered.append(party.site)
            elif contradicted(head, statement, now):
                self._accuse(AlarmKind.FORK, party, held, _second(head, now, statement), heard)
        for key, row in self._open(party.site):
            self._settle(key, row, statement, now, party, heard)

    def _answer(self, statement: Statement, party: PublicIdentity) -> None:
        for alarm in self.open_alarms():
            if _answered(alarm, statement, party):
                self._memory.put("answer", alarm.digest, statement.canonical)

    def _settle(
        self, key: str, row: dict[str, Any], statement: Statement, now: Head, party: PublicIdentity, heard: Heard
    ) -> None:
        """What a statement says of a head that was open."""
        note = row["note"].encode()
        if not _signed(note, party):
            self._memory.drop("head", key)
            return
        head = _head_of(note, party)
        if statement.excuses(head) or statement.proves(head, now):
            self._memory.drop("head", key)
            if not self._open(party.site):
                self.spoke("proof", party.site)
        elif contradicted(head, statement, now):
            self._accuse(AlarmKind.FORK, party, note, _second(head, now, statement), heard)
            self._memory.drop("head", key)
        else:
            row["silent"] += 1
            self._memory.put("head", key, json.dumps(row).encode())
            if row["silent"] >= PATIENCE:
                self._memory.put("missed", f"proof/{party.site}", b"%d" % row["silent"])
                if (alarm := self._silence("proof", party.site)) is not None:
                    heard.alarms.append(alarm)

    def _take_head(self, note: bytes, witness: str, parties: Mapping[str, PublicIdentity], heard: Heard) -> None:
        try:
            origin = parse_note(note, witness).text.partition("\n")[0]
            party = self._identity.public if origin == self._identity.site else parties.get(origin)
            if party is None:
                return
            head = _head_of(note, party)
        except ProtocolViolation:
            return  # signed with a key that is known no more
        if origin == self._identity.site:
            heard.own.append((head, witness))
            self.remember(head.size, len(parties) + 1)
        elif head.size:
            self._compare(_bounded(note, party), party, heard)

    def _compare(self, note: bytes, party: PublicIdentity, heard: Heard) -> None:
        """A head of another ledger beside everything that is held of that ledger."""
        head, rows = _head_of(note, party), self._open(party.site)
        kept = self._memory.get("statement", party.site)
        last = None if kept is None else _statement_of(kept, party)
        if last is not None and last[0].excuses(head):
            return
        known = [row["note"].encode() for _, row in rows]
        if (held := self._held(party.site)) is not None:
            known.append(held)
        for other in known:
            if not _signed(other, party):
                continue
            other_head = _head_of(other, party)
            if forked(head, other_head) and not (last is not None and last[0].excuses(other_head)):
                self._accuse(AlarmKind.FORK, party, other, note, heard)
            elif other_head == head:
                return
        if last is not None:
            statement, now = last
            if statement.proves(head, now):
                return
            if contradicted(head, statement, now):
                self._accuse(AlarmKind.FORK, party, note, _second(head, now, statement), heard)
                return
        if len(rows) >= MOST_OPEN:
            self._memory.drop("head", rows[0][0])
        row = {"note": note.decode(), "silent": 0}
        self._memory.put("head", f"{party.site}/{head.size:016d}/{head.root.hex()}", json.dumps(row).encode())

    def _take_alarm(self, content: bytes, sender: str, parties: Mapping[str, PublicIdentity], heard: Heard) -> None:
        try:
            alarm = parse_alarm(content, sender)
        except ProtocolViolation:
            return
        own = alarm.origin == self._identity.site
        accused = self._identity.public if own else parties.get(alarm.origin)
        raiser = parties.get(alarm.by)
        if accused is None or raiser is None or not raiser.verifies(bytes.fromhex(alarm.signature), alarm.message):
            return
        if proven(alarm, accused):
            self._keep(alarm, accused, heard)

    def _accuse(self, kind: AlarmKind, party: PublicIdentity, first: bytes, second: bytes, heard: Heard) -> None:
        alarm = raise_alarm(kind, party.site, first.decode(), second.decode(), self._now(), self._identity)
        if proven(alarm, party):
            self._keep(alarm, party, heard)

    def _keep(self, alarm: Alarm, accused: PublicIdentity, heard: Heard) -> None:
        alike = [one for one in self.open_alarms() if (one.kind, one.origin) == (alarm.kind, alarm.origin)]
        if self._memory.get("alarm", alarm.digest) is not None or len(alike) >= MOST_OF_A_KIND:
            return
        self._memory.put("alarm", alarm.digest, alarm.canonical)
        heard.alarms.append(alarm)
        kept = self._memory.get("statement", accused.site)
        last = None if kept is None else _statement_of(kept, accused)
        if kept is not None and last is not None and _answered(alarm, last[0], accused):
            self._memory.put("answer", alarm.digest, kept)

    def _silence(self, what: str, party: str) -> Alarm | None:
        """A new alarm, or None while one of the same stands."""
        for one in self.open_alarms():
            if one.kind is AlarmKind.SILENCE and (one.origin, one.first) == (party, what):
                return None
        # The time is part of what is noted, so that silence of another day is another alarm.
        at = self._now()
        alarm = raise_alarm(AlarmKind.SILENCE, party, what, at, at, self._identity)
        self._memory.drop("answer", alarm.digest)
        self._memory.put("alarm", alarm.digest, alarm.canonical)
        return alarm

    def _open(self, origin: str) -> list[tuple[str, dict[str, Any]]]:
        """Heads of one ledger that nothing has settled, the shortest first."""
        rows = [(key, json.loads(row)) for key, row in self._memory.all("head", f"{origin}/")]
        return sorted(rows, key=lambda one: one[0])


@lru_cache(maxsize=8192)
def _head_of(note: bytes, party: PublicIdentity) -> Head:
    """The head of a note that ``party`` signed. Raises ProtocolViolation. The same few come again each round."""
    return verify(note, party).checkpoint.head


@lru_cache(maxsize=512)
def _statement_of(content: bytes, party: PublicIdentity) -> tuple[Statement, Head] | None:
    """A statement that was kept, and its head; None: ``party`` has another key now."""
    statement = parse_statement(content, party.site)
    try:
        return statement, statement.head(party)
    except ProtocolViolation:
        return None


def _second(head: Head, now: Head, statement: Statement) -> bytes:
    """The other half of the evidence: a head of the same size, or the statement with the proof that does not fit."""
    return statement.note.encode() if head.size == now.size else statement.canonical


def _signed(note: bytes, party: PublicIdentity) -> bool:
    try:
        _head_of(note, party)
    except ProtocolViolation:
        return False
    return True


def _answered(alarm: Alarm, statement: Statement, party: PublicIdentity) -> bool:
    try:
        return answered(alarm, statement, party)
    except ProtocolViolation:
        return False


def _bounded(note: bytes, party: PublicIdentity) -> bytes:
    """The note without what whoever carries it could have added to make it long."""
    if len(note) <= MAX_NOTE:
        return note
    parsed = parse_note(note, party.site)
    own = next(line for line in parsed.signatures if party.verifies(line.signature, parsed.text.encode()))
    return Note(parsed.text, (own,)).encode()
