"""What is read of FHIR R4 resources (hl7.org/fhir/R4), and the events that they become.

Each model names the fields that are read and is strict about their JSON types; other fields are not looked at. The
models of ``fhir.resources`` check a resource as a whole and take some twenty times as long; the tests compare both.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.client.connectors.events import BOUND, NOT_DAY, NOT_TIME, Event, LeftOut, Person, Version

UCUM: Final = "http://unitsofmeasure.org"
ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_WHEN: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class Coding(_Part):
    system: str | None = None
    code: str | None = None


class Concept(_Part):
    coding: list[Coding] = []
    text: str | None = None


class Reference(_Part):
    reference: str | None = None
    display: str | None = None


class Quantity(_Part):
    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Period(_Part):
    start: str | None = None


class Meta(_Part):
    lastUpdated: str | None = None
    versionId: str | None = None


class _Resource(_Part):
    id: str | None = None
    meta: Meta = Meta()
    contained: list[Any] = []


class _Value(_Part):
    valueQuantity: Quantity | None = None
    valueCodeableConcept: Concept | None = None
    valueString: str | None = None
    valueInteger: int | None = None
    valueBoolean: bool | None = None


class Component(_Value):
    code: Concept


class Patient(_Resource):
    active: bool | None = None
    birthDate: str | None = None
    gender: str | None = None
    deceasedBoolean: bool | None = None
    deceasedDateTime: str | None = None
    managingOrganization: Reference | None = None


class Observation(_Resource, _Value):
    status: str
    code: Concept
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectiveInstant: str | None = None
    effectivePeriod: Period | None = None
    component: list[Component] = []


class Condition(_Resource):
    verificationStatus: Concept | None = None
    code: Concept | None = None
    subject: Reference
    onsetDateTime: str | None = None
    onsetPeriod: Period | None = None
    recordedDate: str | None = None


class Encounter(_Resource):
    model_config = ConfigDict(strict=True, protected_namespaces=())

    status: str
    type: list[Concept] = []
    subject: Reference | None = None
    period: Period | None = None
    serviceProvider: Reference | None = None


class MedicationRequest(_Resource):
    status: str
    intent: str
    medicationCodeableConcept: Concept | None = None
    medicationReference: Reference | None = None
    subject: Reference
    authoredOn: str | None = None


class Procedure(_Resource):
    status: str
    code: Concept | None = None
    subject: Reference
    performedDateTime: str | None = None
    performedPeriod: Period | None = None


class Medication(_Resource):
    code: Concept | None = None


_R = TypeVar("_R", bound=_Resource)


class Reading:
    """How one source is read: its code systems, its bounds, its drugs, and who is who in the bundle at hand."""

    def __init__(self, systems: Mapping[str, str], use_bounds: bool) -> None:
        self.systems = systems
        self.use_bounds = use_bounds
        self.drugs: dict[str, tuple[str, ...]] = {}
        self.urls: dict[str, str] = {}
        """From fullUrl to id, of the bundle at hand."""
        self.number = 0

    def items(self, kind: str, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
        """What a resource of type ``kind`` tells. Raises LeftOut."""
        self.number += 1
        yield from _READERS[kind](self, resource)

    def codes(self, *concepts: Concept | None) -> tuple[str, ...]:
        found: list[str] = []
        for concept in concepts:
            for coding in concept.coding if concept else ():
                name = "local" if not coding.system else self.systems.get(coding.system)
                if name and coding.code:
                    found.append(f"{name}:{coding.code}")
        return tuple(found)

    def target(self, reference: Reference | None) -> str:
        """The id that a reference means: Type/id, a URL of one, urn:uuid, or an address of the bundle. Empty: none."""
        text = reference.reference if reference and reference.reference else ""
        if text in self.urls:
            return self.urls[text]
        text = text.split("/_history/", 1)[0]
        found = text.rsplit("/", 1)[-1].removeprefix("urn:uuid:").removeprefix("urn:oid:")
        return found if ID.fullmatch(found) else ""

    def patient(self, reference: Reference | None) -> str:
        found = self.target(reference)
        if not found:
            raise LeftOut("no reference to a patient")
        return found

    def version(self, resource: _Resource) -> Version:
        """The newer of two states of a resource has the larger one; ties go to the one that is read last."""
        updated, _ = when(resource.meta.lastUpdated)
        seconds = updated.timestamp() if isinstance(updated, datetime) and updated.tzinfo else 0.0
        number = resource.meta.versionId or ""
        return (seconds, float(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0.0)

    def value(self, holder: _Value) -> tuple[float | None, str | None, str | None, str]:
        """Number, text, unit and problem of a value."""
        quantity = holder.valueQuantity
        if quantity is not None:
            unit = quantity.code if quantity.code and quantity.system in (UCUM, None) else quantity.unit
            bound = quantity.comparator is not None and not self.use_bounds
            return quantity.value, None, unit, BOUND if bound else ""
        if holder.valueInteger is not None:
            # A whole number of any length is JSON; beyond this it is no measurement.
            number = float(holder.valueInteger) if abs(holder.valueInteger) < 10**300 else float("inf")
            return number, None, "1", ""
        if holder.valueCodeableConcept is not None:
            codes = self.codes(holder.valueCodeableConcept)
            return None, codes[0] if codes else holder.valueCodeableConcept.text, None, ""
        if holder.valueBoolean is not None:
            return None, str(holder.valueBoolean).lower(), None, ""
        return None, holder.valueString, None, ""


def when(text: str | None) -> tuple[datetime | date | None, str]:
    """A FHIR dateTime, and why it is none."""
    if text is None:
        return None, ""
    if not _WHEN.fullmatch(text):
        return None, NOT_TIME
    if len(text) < 10:
        return None, NOT_DAY
    try:
        return (date if len(text) == 10 else datetime).fromisoformat(text), ""
    except ValueError:
        return None, NOT_TIME


def birthday(text: str | None) -> date | None:
    """A FHIR date; the middle of the year or month where it is not to the day."""
    if text is None or not _WHEN.fullmatch(text):
        return None
    whole = text[:10] if len(text) >= 10 else text + ("-15" if len(text) == 7 else "-07-01")
    try:
        return date.fromisoformat(whole)
    except ValueError:
        return None


def _fit(model: type[_R], resource: Mapping[str, Any]) -> _R:
    try:
        found = model.model_validate(resource)
    except (ValidationError, RecursionError):
        raise LeftOut("not what FHIR R4 says") from None
    return found


def _key(kind: str, resource: _Resource, number: int | None = None) -> str:
    if not resource.id:
        return ""
    return f"{kind}/{resource.id}" if number is None else f"{kind}/{resource.id}#{number}"


def _patient(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Patient, resource)
    if not found.id or not ID.fullmatch(found.id):
        raise LeftOut("a patient without an id")
    version = reading.version(found)
    site = found.managingOrganization
    name = reading.target(site) or (site.display if site else None)
    sex = found.gender if found.gender in ("male", "female", "other") else None
    # The patient's own organisation goes before that of an encounter.
    yield Person(found.id, birthday(found.birthDate), sex, name or None, (1.0, *version))
    if found.deceasedDateTime is not None or found.deceasedBoolean:
        time, problem = when(found.deceasedDateTime)
        yield Event(found.id, "death", (), time, key=_key("Death", found), version=version, problem=problem)


def _observation(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Observation, resource)
    void = found.status == "entered-in-error"
    if not void and found.status not in ("final", "amended", "corrected"):
        raise LeftOut("not final")
    patient, version = reading.patient(found.subject), reading.version(found)
    period = found.effectivePeriod.start if found.effectivePeriod else None
    time, late = when(found.effectiveDateTime or found.effectiveInstant or period)
    parts: list[tuple[str, Concept, _Value]] = [(_key("Observation", found), found.code, found)]
    parts += [(_key("Observation", found, n), part.code, part) for n, part in enumerate(found.component)]
    for key, code, holder in parts:
        number, text, unit, problem = reading.value(holder)
        yield Event(
            patient, "measurement", reading.codes(code), time, number, text, unit, key, version, void, late or problem
        )


def _condition(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Condition, resource)
    states = {coding.code for coding in found.verificationStatus.coding} if found.verificationStatus else set()
    period = found.onsetPeriod.start if found.onsetPeriod else None
    time, problem = when(found.onsetDateTime or period or found.recordedDate)
    yield Event(
        reading.patient(found.subject),
        "condition",
        reading.codes(found.code),
        time,
        key=_key("Condition", found),
        version=reading.version(found),
        void=bool(states & {"entered-in-error", "refuted"}),
        problem=problem,
    )


def _encounter(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Encounter, resource)
    if found.status == "planned":
        raise LeftOut("planned only")
    patient, version = reading.patient(found.subject), reading.version(found)
    time, problem = when(found.period.start if found.period else None)
    kind = resource.get("class")
    where = kind.get("code") if isinstance(kind, Mapping) else None
    system = kind.get("system") if isinstance(kind, Mapping) else None
    whole = Concept(coding=[Coding(system=system, code=where)]) if _text(system) and _text(where) else None
    void = found.status in ("entered-in-error", "cancelled")
    yield Event(
        patient,
        "encounter",
        reading.codes(*found.type, whole),
        time,
        key=_key("Encounter", found),
        version=version,
        void=void,
        problem=problem,
    )
    place = reading.target(found.serviceProvider) or (found.serviceProvider.display if found.serviceProvider else None)
    if place and not void and isinstance(time, datetime) and time.tzinfo:
        yield Person(patient, site_of_care=place, version=(0.0, time.timestamp()), listed=False)


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _drug(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(MedicationRequest, resource)
    void = found.status in ("entered-in-error", "cancelled")
    if found.status == "draft" or found.intent in ("proposal", "plan", "option"):
        raise LeftOut("planned only")
    codes = reading.codes(found.medicationCodeableConcept)
    if found.medicationReference is not None:
        text = found.medicationReference.reference or ""
        if text.startswith("#"):
            codes = _contained(reading, found, text[1:])
        elif (target := reading.target(found.medicationReference)) in reading.drugs:
            codes = reading.drugs[target]
        else:
            raise LeftOut("a medication that is not in the source")
    time, problem = when(found.authoredOn)
    yield Event(
        reading.patient(found.subject),
        "drug",
        codes,
        time,
        key=_key("MedicationRequest", found),
        version=reading.version(found),
        void=void,
        problem=problem,
    )


def _contained(reading: Reading, found: MedicationRequest, name: str) -> tuple[str, ...]:
    for part in found.contained:
        if isinstance(part, Mapping) and part.get("id") == name and part.get("resourceType") == "Medication":
            return reading.codes(_fit(Medication, part).code)
    raise LeftOut("a medication that is not in the source")


def _procedure(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Procedure, resource)
    if found.status in ("preparation", "not-done"):
        raise LeftOut("planned only")
    time, problem = when(found.performedDateTime or (found.performedPeriod.start if found.performedPeriod else None))
    yield Event(
        reading.patient(found.subject),
        "procedure",
        reading.codes(found.code),
        time,
        key=_key("Procedure", found),
        version=reading.version(found),
        void=found.status == "entered-in-error",
        problem=problem,
    )


def _medication(reading: Reading, resource: Mapping[str, Any]) -> Iterator[Event | Person]:
    found = _fit(Medication, resource)
    if found.id:
        reading.drugs[found.id] = reading.codes(found.code)
    return iter(())


_READERS: Final[Mapping[str, Callable[[Reading, Mapping[str, Any]], Iterator[Event | Person]]]] = {
    "Patient": _patient,
    "Observation": _observation,
    "Condition": _condition,
    "Encounter": _encounter,
    "MedicationRequest": _drug,
    "Medication": _medication,
    "Procedure": _procedure,
}
