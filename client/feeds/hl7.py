"""Messages of admission, discharge and visit (HL7 v2.5.1, chapter 3) in a folder, as events.

========================  ==========================================================================================
message                   gives
========================  ==========================================================================================
A01 admit, A04 register,  an arrival at PV1-44, else at the time of the event (EVN-6, EVN-2): by the patient's class
A06 becomes inpatient     (PV1-2) an admission, an emergency or a visit
A03 discharge, A07        the discharge of who was admitted, at PV1-45, else at the time of the event
becomes outpatient
A08 update                the arrival and the discharge again, at the times that it names
A11, A13                  takes the arrival, or the discharge, back: amount 0
========================  ==========================================================================================

What a stay is known by is the patient's number and the visit's (PV1-19), else the time of the admission.

A11 cancels an arrival and A13 a discharge (3.3.11, 3.3.13), and a cancelled one stays so: an update (A08) may say once
more when it was, and says nothing new. Only a message of the arrival itself (A01, A04, A06) or of the discharge (A03,
A07) counts it again. Messages that merge or change a patient's or visit's number are set aside (docs/feeds.md).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from wardround.client.connectors.events import Clock, LeftOut, Tally
from wardround.client.connectors.hl7v2_messages import Message, messages
from wardround.client.feeds.cancelled import Cancelled
from wardround.client.feeds.events import EVENTS_AT_ONCE, Event
from wardround.client.feeds.hl7_files import ENTRY_SIZE, Inbox
from wardround.client.feeds.settings import Arrival, Hl7FeedSource
from wardround.client.feeds.watermark import opened, sealed

CLASSES: Final[dict[str, Arrival]] = {
    "E": "emergency",
    "I": "admission",
    "B": "admission",
    "O": "visit",
    "R": "visit",
    "P": "nothing",
}
"""HL7 table 0004: emergency, inpatient, obstetrics, outpatient, recurring, preadmit."""

UNNAMED: Final[dict[str, Arrival]] = {
    "A01": "admission",
    "A03": "admission",
    "A04": "visit",
    "A06": "admission",
    "A07": "admission",
    "A13": "admission",
}
"""What a stay of another class is, by the message."""

READ: Final = frozenset({*UNNAMED, "A08", "A11"})
RENUMBERED: Final = frozenset(
    {"A18", "A30", *(f"A{number}" for number in range(34, 37)), *(f"A{n}" for n in range(39, 52))}
)
"""Merges, moves and changes of patients' and visits' numbers (3.3.18, 3.3.30, 3.3.34 to 3.3.51)."""

OTHER_KIND: Final = "a message of another kind than A01, A03, A04, A06, A07, A08, A11, A13"
NOT_FOLLOWED: Final = "a merge or a change of a patient's or visit's number, which is not followed"


class Hl7Feed:
    """See ``Feed``. ``path``: the folder; ``now``: ns since 1970; ``at_once``: events of a poll."""

    def __init__(
        self,
        source: Hl7FeedSource,
        path: Path,
        key: bytes,
        now: Callable[[], int] = time.time_ns,
        at_once: int = EVENTS_AT_ONCE,
    ) -> None:
        self._source, self._path, self._key, self._now, self._at_once = source, path, key, now, at_once
        self._clock = Clock(source.time_zone)
        self._classes = CLASSES | source.classes
        self._cancelled = Cancelled(key)
        self.set_aside: Counter[str] = Counter()

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        self._cancelled, places = Cancelled.parse(opened(watermark, self._key), self._key, ENTRY_SIZE)
        inbox = Inbox(self._path, places, self._key, round(self._source.settle_seconds * 1e9), self._now())
        self.set_aside = inbox.set_aside
        events: list[Event] = []
        for path in inbox.files():
            for piece in inbox.pieces(path):
                for text in piece:
                    events += self._read(text)
                if len(events) >= self._at_once:
                    return events, self._packed(inbox)
        return events, self._packed(inbox)

    def _packed(self, inbox: Inbox) -> bytes:
        return sealed(self._cancelled.packed() + inbox.packed(), self._key)

    def _read(self, text: bytes) -> list[Event]:
        """The events of a message; none, and a reason that is counted, where it cannot be used."""
        tally = Tally()
        try:
            for segments in messages(BytesIO(text), "", tally):
                return list(self._events(Message(segments, self._source.encoding)))
        except LeftOut as reason:
            tally.add(str(reason))
        finally:
            self.set_aside.update(tally.counts)
        return []

    def _events(self, message: Message) -> Iterator[Event]:
        if message.kind == "ADT" and message.trigger in RENUMBERED:
            raise LeftOut(NOT_FOLLOWED)
        if message.kind != "ADT" or message.trigger not in READ:
            raise LeftOut(OTHER_KIND)
        first: dict[str, Any] = {}
        for segment in message.segments:
            first.setdefault(message.get(segment, 0), segment)
        if "PID" not in first:
            raise LeftOut("a message without a patient's number")
        if "PV1" not in first:
            raise LeftOut("a message without a visit")
        patient, visit = message.patient(first["PID"], self._source.authority), first["PV1"]
        event = first.get("EVN")
        happened = (message.get(event, 6) or message.get(event, 2)) if event is not None else ""
        happened = happened or message.get(first["MSH"], 7)
        admitted, left = message.get(visit, 44), message.get(visit, 45)
        trigger, place = message.trigger, message.get(visit, 2)
        number = message.get(visit, 19) or admitted or (happened if trigger in ("A01", "A04") else "")
        if not number:
            raise LeftOut("a visit without its number")

        def made(kind: str, written: str, amount: float = 1.0) -> Event:
            found, problem = message.when(written)
            at = self._clock.moment(found)
            if at is None:
                raise LeftOut(problem or "a visit without its time")
            return Event(patient, at, kind, amount, f"{kind}|{patient}|{number}")

        arrival = self._classes.get(place) or UNNAMED.get(trigger)
        stay, out = f"stay|{patient}|{number}", f"discharge|{patient}|{number}"
        if stay in self._cancelled and trigger in ("A03", "A07", "A08"):
            raise LeftOut("an update or a discharge of a visit that was cancelled")
        match trigger:
            case "A01" | "A04" | "A06":
                assert arrival is not None
                if trigger == "A06":
                    arrival = "admission"
                if arrival != "nothing":
                    yield made(arrival, admitted or happened)
                self._cancelled.drop(stay)
            case "A03" | "A07":
                if arrival == "admission" or trigger == "A07":
                    yield made("discharge", left or happened)
                self._cancelled.drop(out)
            case "A08":
                if arrival is None:
                    raise LeftOut("an update of a visit whose class is not known")
                if arrival != "nothing" and admitted:
                    yield made(arrival, admitted)
                if arrival == "admission" and left:
                    if out in self._cancelled:
                        self.set_aside["an update that names a discharge that was cancelled"] += 1
                    else:
                        yield made("discharge", left)
            case "A11":
                for kind in (arrival,) if arrival else ("admission", "visit"):
                    if kind != "nothing":
                        yield made(kind, admitted or happened, 0.0)
                self._cancelled.add(stay)
            case "A13":
                yield made("discharge", left or happened, 0.0)
                self._cancelled.add(out)
