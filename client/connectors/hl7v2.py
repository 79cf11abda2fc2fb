"""HL7 v2: folders, zips or files of ADT and ORU messages, as one row per patient.

ORU and OUL give results (OBX), ADT visits (PV1), diagnoses (DG1) and procedures (PR1); every one of them says who the
patient is (PID). Other messages are counted and not read. A result is told by its order, code, sub-id and time: a
corrected one replaces the earlier, a withdrawn one removes it, a preliminary one is not used. Merged patients (MRG) are
read under the number that survives.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from wardround.client.connectors.codes import V2_SYSTEMS, with_own
from wardround.client.connectors.cohort_spec import parse_spec
from wardround.client.connectors.events import Event, LeftOut, Person, Tally
from wardround.client.connectors.hl7v2_messages import Message, messages, quantity
from wardround.client.connectors.parts import parts, reading
from wardround.client.connectors.sifting import kinds_of
from wardround.client.connectors.timeline import rows
from wardround.protocol.errors import UsageError

FINAL: Final = frozenset({"", "F", "C", "A", "B", "U", "V"})
WITHDRAWN: Final = frozenset({"D", "W", "X"})
"""OBX-11, HL7 table 0085. Everything else is not final."""
MERGES: Final = frozenset({"A18", "A34", "A36", "A40", "A47"})
ARRIVALS: Final = frozenset({"A01", "A04"})
STAYS: Final = frozenset({"A02", "A03", "A06", "A07", "A08", "A13"})
CANCELLED: Final = frozenset({"A11"})
_SEX: Final = {"M": "male", "F": "female", "O": "other", "A": "other", "N": "other"}
_CODED: Final = frozenset({"CE", "CWE", "CNE"})
_NOTHING: Final = frozenset({"ED", "RP"})


def read_hl7v2(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    cohort: Mapping[str, Any],
    time_zone: str = "UTC",
    systems: Mapping[str, str] | None = None,
    bounds: Literal["leave_out", "limit"] = "leave_out",
    encoding: str = "utf-8",
    authority: str | None = None,
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """One row per patient, as ``cohort`` says; the columns that are asked for.

    Args:
        cohort: see cohort_spec.py.
        time_zone: of the site, for times without a zone in messages without one.
        systems: short names of coding systems beyond HL7 table 0396, by the name in the message.
        bounds: what becomes of a result such as <5: left out and counted, or the limit 5.
        encoding: of messages that do not name their character set (MSH-18).
        authority: the assigning authority (PID-3.4) whose number is the patient's id; None: the medical record number
            (type MR), else the first.
        tally: what was left out, when all batches are taken.

    Raises:
        UsageError: a wrong option, no such file, or no message in it that can be read.
    """
    spec = parse_spec(dict(cohort) if isinstance(cohort, Mapping) else {})
    if bounds not in ("leave_out", "limit"):
        raise UsageError("option 'bounds' is not what it must be", "write leave_out or limit")
    try:
        "".encode(encoding).decode(encoding)
    except (LookupError, TypeError):
        raise UsageError("option 'encoding' names no character set", "write utf-8, iso8859-1, cp1252, ...") from None
    if authority is not None and not isinstance(authority, str):
        raise UsageError("option 'authority' is not what it must be", "write the text of PID-3.4")
    tally = Tally() if tally is None else tally
    kinds = kinds_of(spec, columns)
    source = _Source(path, kinds, with_own(V2_SYSTEMS, systems), bounds == "limit", encoding, authority, tally)
    yield from rows(spec, (), source, columns=columns, time_zone=time_zone, tally=tally)


class _Source:
    """Persons and events of messages, as often as they are read."""

    def __init__(
        self,
        path: Path,
        kinds: frozenset[str],
        systems: Mapping[str, str],
        use_bounds: bool,
        encoding: str,
        authority: str | None,
        tally: Tally,
    ) -> None:
        self.path, self.kinds, self.systems, self.use_bounds = path, kinds, systems, use_bounds
        self.encoding, self.authority, self.tally = encoding, authority, tally
        self.merged: dict[str, str] | None = None

    def __iter__(self) -> Iterator[Event | Person]:
        if self.merged is None:
            self.merged = self._merges()
        good = 0
        for message, place in self._messages():
            try:
                found = Message(message, self.encoding)
                good += 1
                yield from self._items(found, place)
            except LeftOut as reason:
                self.tally.add(str(reason), place)
        if not good:
            raise UsageError(
                f"'{self.path.name}' holds no HL7 v2 message that can be read",
                "a message begins with MSH; docs/clinical-systems.md names the options",
            )

    def _messages(self) -> Iterator[tuple[list[bytes], str]]:
        for part in parts(self.path, (".hl7", ".txt", ".dat", ".msg"), "HL7 v2 messages"):
            with reading(part.name), part.open() as stream:
                for number, message in enumerate(messages(stream, part.name, self.tally), 1):
                    yield message, f"{part.name} message {number}"

    def _merges(self) -> dict[str, str]:
        """The number that survives of each number that was merged away, in the order in which that was said."""
        said: list[tuple[float, int, str, str]] = []
        for message, _ in self._messages():
            if any(segment.startswith(b"MRG") for segment in message):
                try:
                    found = Message(message, self.encoding)
                except LeftOut:
                    continue
                if found.kind != "ADT" or found.trigger not in MERGES:
                    continue
                into = ""
                for segment in found.segments:
                    if found.get(segment, 0) == "PID":
                        into = found.number(segment, 3, self.authority)
                    elif found.get(segment, 0) == "MRG":
                        old = found.number(segment, 1, self.authority)
                        if old and into and old != into:
                            said.append((found.seconds, len(said), old, into))
        merged: dict[str, str] = {}
        for _, _, old, into in sorted(said):
            # A number that others are merged into lives again.
            merged.pop(into, None)
            merged[old] = into
        self.tally.clear()
        return merged

    def _patient(self, message: Message, segment: Any) -> str:
        found = message.patient(segment, self.authority)
        assert self.merged is not None
        while found in self.merged:
            found = self.merged[found]
        return found

    def _items(self, message: Message, place: str) -> Iterator[Event | Person]:
        if message.kind not in ("ADT", "ORU", "OUL"):
            raise LeftOut("a message that is neither ADT nor ORU nor OUL")
        patient, order, told, visit = "", None, None, None
        happened = ""
        for segment in message.segments:
            kind = message.get(segment, 0)
            if kind == "EVN":
                happened = message.get(segment, 6) or message.get(segment, 2)
            elif kind == "PID":
                patient, order, told = self._patient(message, segment), None, segment
                yield from self._person(message, segment, patient)
            elif not patient:
                if kind in ("OBX", "PV1", "DG1", "PR1"):
                    raise LeftOut("a message without a patient's number")
            elif kind == "PV1":
                visit = segment
                yield from self._visit(message, segment, patient, happened, place)
            elif kind == "OBR":
                order = segment
            elif kind == "OBX" and message.kind != "ADT" and "measurement" in self.kinds:
                yield from self._result(message, segment, order, patient, place)
            elif kind in ("DG1", "PR1") and message.kind == "ADT":
                yield from self._finding(message, segment, visit, patient)
        if told is None:
            raise LeftOut("a message without a patient's number")

    def _person(self, message: Message, segment: Any, patient: str) -> Iterator[Event | Person]:
        birth, _ = message.when(message.get(segment, 7))
        if birth is None:
            birth = _middle(message.get(segment, 7))
        day = birth.date() if isinstance(birth, datetime) else birth
        version = (message.seconds,)
        yield Person(patient, day, _SEX.get(message.get(segment, 8).upper()), None, version)
        died = message.get(segment, 29)
        if died or message.get(segment, 30) == "Y":
            time, problem = message.when(died)
            yield Event(patient, "death", (), time, key=f"death {patient}", version=version, problem=problem)

    def _visit(
        self, message: Message, segment: Any, patient: str, happened: str, where: str
    ) -> Iterator[Event | Person]:
        place = message.get(segment, 3, 4)
        if place:
            yield Person(patient, site_of_care=place, version=(message.seconds,))
        trigger = message.trigger
        if message.kind != "ADT" or trigger not in ARRIVALS | STAYS | CANCELLED:
            return
        admitted = message.get(segment, 44)
        if not admitted and trigger in ARRIVALS:
            admitted = happened or message.get(message.segments[0], 7)
        number = message.get(segment, 19)
        void = trigger in CANCELLED
        if not admitted and not void:
            self.tally.add("a visit without its beginning", where)
            return
        if void and not (number or admitted):
            self.tally.add("a cancelled visit without its number", where)
            return
        time, problem = message.when(admitted)
        code = message.get(segment, 2)
        codes = (f"class:{code}",) if code and not re.search(r"\s", code) else ()
        key = f"visit {patient} {number or admitted}"
        yield Event(
            patient, "encounter", codes, time, key=key, version=(message.seconds, void), void=void, problem=problem
        )

    def _finding(self, message: Message, segment: Any, visit: Any, patient: str) -> Iterator[Event]:
        diagnosis = message.get(segment, 0) == "DG1"
        codes = self._codes(message, segment, 3, system=message.get(segment, 2))
        written = message.get(segment, 5) or (message.get(visit, 44) if visit is not None else "")
        time, problem = message.when(written)
        stay = message.get(visit, 19) if visit is not None else ""
        what = codes[0] if codes else message.get(segment, 3)
        void = message.get(segment, 21 if diagnosis else 20) == "D"
        yield Event(
            patient,
            "condition" if diagnosis else "procedure",
            codes,
            time,
            key=f"{'diagnosis' if diagnosis else 'procedure'} {patient} {stay} {what} {message.get(segment, 5)}",
            version=(message.seconds, void),
            void=void,
            problem=problem,
        )

    def _result(self, message: Message, segment: Any, order: Any, patient: str, place: str) -> Iterator[Event]:
        status = message.get(segment, 11).upper()
        kind = message.get(segment, 2).upper()
        count = message.repetitions(segment, 5)
        if status not in FINAL | WITHDRAWN or (status == "U" and not count):
            self.tally.add("a result that is not final", place)
            return
        codes = self._codes(message, segment, 3)
        ordered = (message.get(order, 3) or message.get(order, 2)) if order is not None else ""
        written = message.get(segment, 14) or (message.get(order, 7) if order is not None else "")
        time, late = message.when(written)
        what = codes[0] if codes else message.get(segment, 3)
        void = status in WITHDRAWN
        version = (message.seconds, 2.0 if void else 1.0 if status in ("C", "A") else 0.0)
        unit = self._unit(message, segment)
        for number in range(1, max(count, 1) + 1):
            amount, text, problem = self._value(message, segment, kind, number)
            key = f"result {patient} {ordered} {what} {message.get(segment, 4)} {written} {number}"
            yield Event(patient, "measurement", codes, time, amount, text, unit, key, version, void, late or problem)

    def _value(self, message: Message, segment: Any, kind: str, number: int) -> tuple[float | None, str | None, str]:
        text = message.get(segment, 5, 1, number)
        if kind in _CODED:
            name = self.systems.get(message.get(segment, 5, 3, number).upper())
            return None, (f"{name}:{text}" if name and text else message.get(segment, 5, 2, number) or None), ""
        if kind in _NOTHING:
            return None, None, ""
        if kind == "SN":
            if message.get(segment, 5, 3, number) or message.get(segment, 5, 4, number):
                return None, None, "not a number"
            sign = text if text not in ("", "=") else ""
            text = sign + message.get(segment, 5, 2, number)
        amount, problem = quantity(text, self.use_bounds)
        return amount, (None if amount is not None else text or None), problem

    def _unit(self, message: Message, segment: Any) -> str | None:
        if message.get(segment, 6, 6).upper() == "UCUM" and message.get(segment, 6, 3).upper() != "UCUM":
            return message.get(segment, 6, 4) or None
        return message.get(segment, 6) or None

    def _codes(self, message: Message, segment: Any, field: int, system: str = "") -> tuple[str, ...]:
        """The code and its alternative; ``system`` stands where the code names none."""
        found: list[str] = []
        for first in (1, 4):
            code = message.get(segment, field, first)
            named = message.get(segment, field, first + 2) or (system if first == 1 else "")
            name = self.systems.get(named) or self.systems.get(named.upper())
            if code and name and not re.search(r"\s", code):
                found.append(f"{name}:{code}")
        return tuple(found)


def _middle(text: str) -> date | None:
    """The middle of a year or month: YYYY or YYYYMM."""
    if not re.fullmatch(r"\d{4}(0[1-9]|1[0-2])?", text, re.ASCII) or text.startswith("0000"):
        return None
    return date(int(text[:4]), int(text[4:]), 15) if text[4:] else date(int(text), 7, 1)
