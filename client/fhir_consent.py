"""FHIR R4 ``Consent`` resources (hl7.org/fhir/R4/consent.html): which patients said no to research.

Read as a single resource, a Bundle, or NDJSON (the form of FHIR bulk exports). A consent counts when it is active,
about research, and in force. Of those only a clear yes leaves the patient in: a no anywhere in it, or a meaning that is
not clear, is a no. What the standard does not allow is an error, and so is an export that is not whole.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

RESEARCH: Final = frozenset({"research", "rsreid", "rsdid", "59284-0"})
"""Codes of scope or category that say what a consent is about: research (FHIR's consentscope and consentcategorycodes),
information that names the patient (rsreid) or does not (rsdid), and LOINC's code of a patient's consent."""

_STATES: Final = frozenset({"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"})
_YES: Final = frozenset({"OPTIN", "OPTINR"})
"""Codes of policyRule (v3 ActCode) that agree; any other code does not, to be sure."""

_WHEN: Final = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))?)?)?")
_EAST, _WEST = timedelta(hours=14), timedelta(hours=12)
"""A date without a time zone begins where it begins first and ends where it ends last."""


class NotUnderstood(Exception):
    """The file is no export of consents; the text says why, and holds nothing of its content."""


def opted_out_in(text: str, now: datetime, research: frozenset[str] = RESEARCH) -> frozenset[str]:
    """The ids of the patients in ``text`` who are opted out of research at ``now``.

    An id is the last part of ``patient.reference`` ('Patient/4711' gives '4711'), or ``patient.identifier.value``.

    Raises:
        NotUnderstood: the text is not FHIR R4, or not a whole export.
    """
    found: set[str] = set()
    for resource in _resources(text):
        kind = resource.get("resourceType")
        if not isinstance(kind, str):
            raise NotUnderstood("a resource does not say its type")
        if kind == "OperationOutcome":
            raise NotUnderstood("the export reports a problem of its own")
        if kind == "Consent" and _says_no(resource, now, research):
            found |= _patient(resource)
    return frozenset(found)


def _resources(text: str) -> Iterator[Mapping[str, Any]]:
    """Every resource of a single JSON, a Bundle, or lines of JSON."""
    try:
        whole = _parsed(text)
    except (ValueError, RecursionError):
        try:
            parts = [_parsed(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError):
            raise NotUnderstood("it is neither JSON nor lines of JSON") from None
    else:
        parts = [whole]
    if not parts:
        raise NotUnderstood("it is empty")
    for part in parts:
        resource = _object(part)
        if resource.get("resourceType") == "Bundle":
            yield from _entries(resource)
        else:
            yield resource


def _parsed(text: str) -> Any:
    """JSON whose objects have each name once: of two values nobody knows which one is meant. Raises ValueError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError
        return found

    return json.loads(text, object_pairs_hook=once)


def _entries(bundle: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if any(_object(link).get("relation") == "next" for link in _list(bundle, "link")):
        raise NotUnderstood("it is one page of several: export all pages")
    for entry in _list(bundle, "entry"):
        yield _object(_object(entry).get("resource"))


def _says_no(consent: Mapping[str, Any], now: datetime, research: frozenset[str]) -> bool:
    status = consent.get("status")
    if not isinstance(status, str) or status not in _STATES:
        raise NotUnderstood("the status of a consent is not one of FHIR R4")
    about = _codes(consent.get("scope")) | {code for part in _list(consent, "category") for code in _codes(part)}
    if status != "active" or not about & research:
        return False
    provision = consent.get("provision")
    if provision is None:
        rule = consent.get("policyRule")
        return rule is None or not _codes(rule) or not _codes(rule) <= _YES
    if not _in_force(_object(provision), now):
        return False
    return "modifierExtension" in consent or _denies(_object(provision), now)


def _denies(provision: Mapping[str, Any], now: datetime) -> bool:
    """Whether a provision, or an exception to it, in force now, says no. Exceptions cannot be honoured one by one."""
    kind = provision.get("type")
    if kind not in ("deny", "permit", None):
        raise NotUnderstood("the type of a provision is neither 'deny' nor 'permit'")
    exceptions = [_object(part) for part in _list(provision, "provision")]
    denied = [_denies(part, now) for part in exceptions if _in_force(part, now)]
    return kind != "permit" or any(denied) or "modifierExtension" in provision


def _in_force(provision: Mapping[str, Any], now: datetime) -> bool:
    period = provision.get("period")
    if period is None:
        return True
    start, end = _object(period).get("start"), _object(period).get("end")
    return (start is None or _moment(start, last=False) <= now) and (end is None or now < _moment(end, last=True))


def _moment(text: Any, last: bool) -> datetime:
    """The first instant of a FHIR dateTime, or with ``last`` the first one behind it."""
    match = _WHEN.fullmatch(text) if isinstance(text, str) else None
    furthest = (datetime.max if last else datetime.min).replace(tzinfo=UTC)
    try:
        if match is None:
            raise ValueError
        if last and match[1] == "9999":
            return furthest
        if match[4] is not None:
            # Seconds are the finest unit that is compared.
            return datetime.fromisoformat(text) + timedelta(seconds=last)
        year, month, day = (int(part) if part else None for part in match.group(1, 2, 3))
        assert year is not None
        first = date(year, month or 1, day or 1)
        if not last:
            return datetime(first.year, first.month, first.day, tzinfo=UTC) - _EAST
        if day is not None:
            behind = first + timedelta(days=1)
        elif month is not None:
            behind = (first + timedelta(days=31)).replace(day=1)
        else:
            behind = date(year + 1, 1, 1)
        return datetime(behind.year, behind.month, behind.day, tzinfo=UTC) + _WEST
    except OverflowError:
        return furthest
    except ValueError:
        raise NotUnderstood("the period of a consent is no date of FHIR") from None


def _patient(consent: Mapping[str, Any]) -> set[str]:
    """Every id that the consent gives for its patient: one list too many leaves one patient out, too few draws one."""
    patient = _object(consent.get("patient"))
    reference, identifier = patient.get("reference"), patient.get("identifier")
    found = set()
    if isinstance(reference, str):
        match = re.fullmatch(r"(?:.*/)?Patient/([^/#]+)(?:/_history/[^/]+)?", reference)
        if match is None:
            raise NotUnderstood("the patient of a consent is not given as 'Patient/ID'")
        found.add(match[1])
    if identifier is not None:
        value = _object(identifier).get("value")
        if isinstance(value, str) and value.strip():
            found.add(value)
    if not found:
        raise NotUnderstood("a consent does not say whose it is")
    return found


def _codes(concept: Any) -> set[str]:
    """The codes of a CodeableConcept; none where it is absent."""
    if concept is None:
        return set()
    codings = [_object(coding) for coding in _list(_object(concept), "coding")]
    return {code for coding in codings if isinstance(code := coding.get("code"), str)}


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NotUnderstood("a part of it is not an object where FHIR R4 has one")
    return value


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise NotUnderstood("a part of it is not a list where FHIR R4 has one")
    return found
