"""Made-up events where a hospital has them: messages in the folder of its HL7 v2 engine, and rows of a view.

``tell`` writes what has arrived by a moment, as the hospital's own systems would while a campaign of indicators runs.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from wardround.client.feeds.events import Event
from wardround.simulations.made_up_events import Told

ENGINE: Final = "adt"
DATABASE: Final = "emr.sqlite"

_TRIGGERS: Final = {
    # kind: (trigger, the one that takes it back, PV1-2)
    "admission": ("A01", "A11", "I"),
    "discharge": ("A03", "A13", "I"),
    "emergency": ("A04", "A11", "E"),
    "visit": ("A04", "A11", "O"),
}
"""HL7 v2.5.1, chapter 3."""

_COLUMNS: Final = "patient TEXT, at TEXT, kind TEXT, amount REAL, identifier TEXT, arrived TEXT"


class LiveSources:
    """The sources of one hospital in ``folder``, which is its site's. Times are whole seconds.

    Args:
        told: all that will ever be told, in any order.
        engine: whether admissions, discharges and arrivals are messages; what else there is, is rows of the view.
    """

    def __init__(self, folder: Path, told: Sequence[Told], engine: bool) -> None:
        self._folder = folder
        self._told = sorted(whole_seconds(told), key=lambda each: (each.arrives, each.event.identifier))
        self._engine = engine
        self._next = self._files = 0
        if engine:
            (folder / ENGINE).mkdir()
        (folder / "emr.yaml").write_text(f"url: sqlite:///{(folder / DATABASE).absolute()}\n")
        with closing(sqlite3.connect(folder / DATABASE)) as store:
            store.execute(f"CREATE TABLE told ({_COLUMNS})")
            store.execute("CREATE VIEW events AS SELECT * FROM told")
            store.commit()

    def settings(self, kinds: Sequence[str]) -> list[dict[str, Any]]:
        """``feeds`` of site.yaml, for a view that holds ``kinds``."""
        found: list[dict[str, Any]] = [
            {"name": "emr", "kind": "sql", "path": "emr.yaml", "view": "events", "kinds": list(kinds)}
        ]
        return [*found, {"name": "adt", "kind": "hl7v2", "path": ENGINE}] if self._engine else found

    def tell(self, until: datetime) -> int:
        """Write what has arrived by ``until`` and was not written yet; how many events that is."""
        first = self._next
        while self._next < len(self._told) and self._told[self._next].arrives <= until:
            self._next += 1
        due = self._told[first : self._next]
        messages = [each for each in due if self._engine and each.event.kind in _TRIGGERS]
        self._send(messages)
        self._insert([each for each in due if not (self._engine and each.event.kind in _TRIGGERS)])
        return len(due)

    def _send(self, messages: Sequence[Told]) -> None:
        if not messages:
            return
        self._files += 1
        name = f"{self._files:06}.hl7"
        beside = self._folder / ENGINE / f".{name}"
        beside.write_bytes(b"".join(b"\x0b" + _message(each) + b"\x1c\r" for each in messages))
        beside.rename(self._folder / ENGINE / name)

    def _insert(self, rows: Sequence[Told]) -> None:
        if not rows:
            return
        with closing(sqlite3.connect(self._folder / DATABASE, timeout=30.0)) as store:
            store.executemany(
                "INSERT INTO told VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        each.event.patient,
                        each.event.at.isoformat(),
                        each.event.kind,
                        each.event.amount,
                        each.event.identifier,
                        each.arrives.isoformat(),
                    )
                    for each in rows
                ],
            )
            store.commit()


def whole_seconds(told: Iterable[Told]) -> list[Told]:
    """The same events, their times cut to the second, as an HL7 engine writes them."""
    return [
        Told(each.arrives.replace(microsecond=0), replace(each.event, at=each.event.at.replace(microsecond=0)))
        for each in told
    ]


def _message(told: Told) -> bytes:
    """One message of HL7 v2.5.1: MSH, EVN, PID and PV1, the visit known by its number (PV1-19)."""
    event = told.event
    trigger, back, place = _TRIGGERS[event.kind]
    trigger = trigger if event.amount else back
    sent, at = _stamp(told.arrives), _stamp(event.at)
    visit = ["PV1", "1", place, *[""] * 16, event.identifier, *[""] * 24, *_when(event, at)]
    return "\r".join(
        [
            f"MSH|^~\\&|EMR|SITE|WR|SITE|{sent}||ADT^{trigger}|{event.identifier}|P|2.5.1",
            f"EVN|{trigger}|{at}",
            f"PID|1||{event.patient}^^^SITE^MR||MADE^UP",
            "|".join(visit),
        ]
    ).encode()


def _when(event: Event, at: str) -> tuple[str, str]:
    """PV1-44 and PV1-45."""
    return ("", at) if event.kind == "discharge" else (at, "")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S+0000")
