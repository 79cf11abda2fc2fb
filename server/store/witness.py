"""The coordinator as witness: the heads of ledgers that it has cosigned, and what it has heard of them.

One file, ``witness.sqlite`` in the coordinator's folder, for all studies: a ledger is longer than a study. What was
signed is on disk before it is sent.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.protocol.alarm import Alarm, AlarmKind, parse_alarm
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.watch import Heard, Watch
from wardround.protocol.witness import checkpoint_of, cosign
from wardround.server.store.database import explained, transaction, write_ahead

_TABLE: Final = """CREATE TABLE IF NOT EXISTS watched (
    kind TEXT NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL, since TEXT NOT NULL, PRIMARY KEY (kind, key)
    ) STRICT"""
_KEPT: Final = """CREATE TRIGGER IF NOT EXISTS alarms_are_never_removed BEFORE DELETE ON watched WHEN OLD.kind = 'alarm'
    BEGIN SELECT RAISE(ABORT, 'an alarm is kept'); END"""


@dataclass(frozen=True, slots=True)
class Signed:
    """The coordinator has signed the first ``size`` entries of ``origin``'s ledger, last at ``at`` (UTC)."""

    origin: str
    size: int
    at: str


@dataclass(frozen=True, slots=True)
class KeptAlarm:
    """An alarm, since when it is kept here, and since when it has its answer; None: it is open."""

    alarm: Alarm
    since: str
    answered: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the coordinator's file holds for people: whose heads it has signed, and alarms, the oldest first."""

    signed: tuple[Signed, ...]
    alarms: tuple[KeptAlarm, ...]


class CoordinatorWitness:
    """The coordinator's memory of ledgers at ``path``, and what it signs."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self._path = path
        self._identity = identity
        self._store = open_witness(path)
        self.watch = Watch(identity, self, self.held, _now)

    def cosign(self, offered: bytes, proof: Sequence[bytes], log: PublicIdentity) -> bytes:
        """``offered`` with the coordinator's signature.

        Raises:
            ProtocolViolation: it is not ``log``'s, does not continue what was signed before, or an alarm is open.
            Unavailable: it could not be kept; nothing was signed.
        """
        if any(one.origin == log.site and one.kind is not AlarmKind.SILENCE for one in self.watch.open_alarms()):
            raise ProtocolViolation(log.site, "an alarm on its ledger has no answer, so no head of it is cosigned")
        with transaction(self._store, self._path):
            note = cosign(offered, self.held(log.site), proof, log, self._identity)
            self.put("witnessed", log.site, note)
            self.put("witnessed_at", log.site, _now().encode())
        return note

    def hear(self, bulletin: str, parties: dict[str, PublicIdentity]) -> list[Alarm]:
        """New alarms from a site's bulletin. Raises ProtocolViolation when it is not what its site signed."""
        heard: Heard = self.watch.hear(bulletin.encode(), parties)
        for origin in heard.recovered:
            self.drop("witnessed", origin)
        return heard.alarms

    def held(self, origin: str) -> bytes | None:
        """The last note of ``origin``'s ledger that the coordinator has signed."""
        return self.get("witnessed", origin)

    def get(self, kind: str, key: str) -> bytes | None:
        with explained(self._path):
            row = self._store.execute("SELECT content FROM watched WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, kind: str, key: str, content: bytes) -> None:
        with explained(self._path):
            self._store.execute(
                "INSERT INTO watched VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET content = excluded.content",
                (kind, key, content, _now()),
            )

    def drop(self, kind: str, key: str) -> None:
        with explained(self._path):
            self._store.execute("DELETE FROM watched WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str, under: str = "") -> list[tuple[str, bytes]]:
        with explained(self._path):
            rows = self._store.execute(
                "SELECT key, content FROM watched WHERE kind = ? AND key >= ? AND key < ? ORDER BY key",
                (kind, under, under + "\x7f"),
            )
            return [(key, bytes(content)) for key, content in rows]


def kept_alarms(path: Path) -> list[Alarm]:
    """The alarms without an answer in the file at ``path``, the oldest first; none when there is no file. Reads
    only.
    """
    return [one.alarm for one in read_witness(path).alarms if one.answered is None]


def read_witness(path: Path) -> Kept:
    """What the file at ``path`` holds, for screens; nothing when there is no file. Reads only."""
    if not path.exists():
        return Kept((), ())
    with explained(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
        rows = store.execute(
            "SELECT kind, key, content, since FROM watched "
            "WHERE kind IN ('alarm', 'answer', 'witnessed', 'witnessed_at')"
        ).fetchall()
    answers = {key: since for kind, key, _, since in rows if kind == "answer"}
    times = {key: bytes(content).decode() for kind, key, content, _ in rows if kind == "witnessed_at"}
    found = [(parse_alarm(bytes(content), COORDINATOR), since) for kind, _, content, since in rows if kind == "alarm"]
    alarms = [KeptAlarm(alarm, since, answers.get(alarm.digest)) for alarm, since in found]
    signed = [
        Signed(key, checkpoint_of(bytes(content), key).head.size, times.get(key, since))
        for kind, key, content, since in rows
        if kind == "witnessed"
    ]
    return Kept(
        tuple(sorted(signed, key=lambda one: one.origin)),
        tuple(sorted(alarms, key=lambda one: (one.alarm.at, one.alarm.digest))),
    )


def open_witness(path: Path) -> Connection:
    """The file at ``path``, made if it is not there. Raises Unavailable when it cannot be opened or written."""
    with explained(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        store = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        write_ahead(store)
        store.execute("PRAGMA synchronous = FULL")
        store.execute(_TABLE)
        store.execute(_KEPT)
        return store


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
