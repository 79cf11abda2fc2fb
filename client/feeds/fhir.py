"""Encounters of a FHIR R4 server (hl7.org/fhir/R4/encounter.html) that changed, as events.

The beginning of the period is an admission, an emergency or a visit, by the encounter's class; the end of an admitted
patient's is the discharge. ``waiting`` is the minutes from *arrived* to *in-progress*, where the server keeps the
history of the status. Every change of an encounter gives its events again; *cancelled* and *entered-in-error* take them
back, and so does an end that is no longer there.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.client.connectors.events import LeftOut
from wardround.client.connectors.fhir_models import ID, Coding, Encounter, Period, Reading, when
from wardround.client.feeds.events import Event
from wardround.client.feeds.fhir_pages import FhirServer
from wardround.client.feeds.settings import Arrival, FhirFeedSource
from wardround.client.feeds.stamped import StampedFeed
from wardround.client.feeds.window import Window
from wardround.protocol.errors import UsageError

CLASSES: Final[dict[str, Arrival]] = {
    "EMER": "emergency",
    "IMP": "admission",
    "ACUTE": "admission",
    "NONAC": "admission",
    "SS": "admission",
    "OBSENC": "admission",
    "AMB": "visit",
    "HH": "visit",
    "FLD": "visit",
    "VR": "visit",
    "PRENC": "nothing",
}
"""v3-ActCode, ActEncounterCode."""

VOID: Final = frozenset({"cancelled", "entered-in-error"})
HERE: Final = frozenset({"arrived", "triaged", "in-progress", "onleave"})


class _Span(Period):
    end: str | None = None


class _Status(BaseModel):
    model_config = ConfigDict(strict=True)

    status: str
    period: _Span


class _Stay(Encounter):
    model_config = ConfigDict(strict=True, protected_namespaces=())

    class_: Coding = Field(alias="class")
    period: _Span | None = None
    statusHistory: tuple[_Status, ...] = Field(default=(), strict=False)


class FhirFeed(StampedFeed[FhirFeedSource]):
    """Encounters of a server as a feed."""

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        window = self._window(watermark)
        with closing(FhirServer(self._path)) as server:
            events = self._sweep(server, window)
        return events, window.packed()

    def _sweep(self, server: FhirServer, window: Window) -> list[Event]:
        """The events of some pages.

        Where a server counts its pages anew, an encounter that changes meanwhile draws another one from behind the end
        of a page to before it, where nobody looks. So the window goes no further than ``overlap`` past the first page,
        and the next poll reads everything from there on again.
        """
        events: list[Event] = []
        first = anchor = latest = before = None
        for resources, more in server.changed(window.start, self._source.page):
            stamps = []
            for resource in resources:
                stamp = self._stamp(resource)
                if stamp is None:
                    self.set_aside["an encounter without meta.lastUpdated"] += 1
                    continue
                self._check_order(before, stamp)
                before = stamp
                stamps.append(stamp)
                if window.take(stamp, _version(resource)):
                    events += self._events(resource, stamp)
            if stamps:
                first = first or min(stamps)
                # Pages that follow hold nothing older than this one's oldest.
                latest = min(stamps) if more else max(stamps)
                if anchor is None and max(stamps) > first:
                    anchor = max(stamps)
            far = anchor is not None and latest is not None and latest > anchor + self._overlap
            if len(events) >= self._at_once or (far and events):
                break
        if latest is not None:
            window.reach(latest if anchor is None else min(latest, anchor + self._overlap))
        return events

    def _check_order(self, before: datetime | None, stamp: datetime) -> None:
        """A change while pages are read may stand where the older state stood; anything else is no order."""
        if before is not None and stamp < before < self._now() - self._overlap:
            raise UsageError(
                "the FHIR server does not sort by _lastUpdated", "ask its administrator for this search parameter"
            )

    def _stamp(self, resource: Any) -> datetime | None:
        meta = resource.get("meta") if isinstance(resource, dict) else None
        written = meta.get("lastUpdated") if isinstance(meta, dict) else None
        found, _ = when(written) if isinstance(written, str) else (None, "")
        return self._clock.moment(found)

    def _events(self, resource: dict[str, Any], stamp: datetime) -> list[Event]:
        try:
            return list(self._read(_Stay.model_validate(resource), stamp))
        except (ValidationError, RecursionError):
            self.set_aside["not an Encounter of FHIR R4"] += 1
        except LeftOut as reason:
            self.set_aside[f"an encounter: {reason}"] += 1
        return []

    def _read(self, stay: _Stay, stamp: datetime) -> Iterator[Event]:
        if not stay.id or not ID.fullmatch(stay.id):
            raise LeftOut("no id")
        patient = Reading({}, False).patient(stay.subject)
        if stay.status == "planned":
            return
        void = stay.status in VOID
        if not void and stay.status not in HERE | {"finished"}:
            raise LeftOut("its status says nothing")
        arrival = (CLASSES | self._source.classes).get(stay.class_.code or "")
        if arrival is None:
            raise LeftOut("a class that is not known")
        if arrival == "nothing":
            return
        start = self._moment(stay.period.start if stay.period else None)
        end = self._moment(stay.period.end if stay.period else None)
        if start is None and not void:
            raise LeftOut("no beginning")

        def made(kind: str, at: datetime, amount: float) -> Event:
            return Event(patient, at, kind, amount, f"{kind}|{stay.id}")

        yield made(arrival, start or stamp, 0.0 if void else 1.0)
        if arrival == "admission":
            if end is not None and not void and stay.status == "finished":
                yield made("discharge", end, 1.0)
            elif void or stay.meta.versionId != "1":
                # It may have been told earlier.
                yield made("discharge", end or stamp, 0.0)
        if (waited := self._waited(stay)) is not None:
            seen, minutes = waited
            yield made("waiting", seen, 0.0 if void else minutes)

    def _waited(self, stay: _Stay) -> tuple[datetime, float] | None:
        """When the patient was seen, and after how many minutes; None: the history does not say it to the minute."""
        begun: dict[str, datetime] = {}
        for each in stay.statusHistory:
            found, _ = when(each.period.start)
            at = self._clock.moment(found) if isinstance(found, datetime) else None
            if at is not None:
                begun[each.status] = min(at, begun.get(each.status, at))
        if "arrived" not in begun or "in-progress" not in begun or begun["in-progress"] < begun["arrived"]:
            return None
        return begun["in-progress"], (begun["in-progress"] - begun["arrived"]) / timedelta(minutes=1)

    def _moment(self, written: str | None) -> datetime | None:
        found, problem = when(written)
        if problem:
            raise LeftOut(problem)
        return self._clock.moment(found)


def _version(resource: Any) -> str:
    """What makes a state of an encounter another one than the one before."""
    meta = resource["meta"]
    return repr((resource.get("id"), meta.get("versionId"), meta["lastUpdated"]))
