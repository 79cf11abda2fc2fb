"""FHIR R4: bulk exports (NDJSON, hl7.org/fhir/uv/bulkdata) and bundles, as folder, zip or single file.

Files that end with .ndjson hold one resource a line, files that end with .json one resource or bundle. A line that is
no JSON is counted and named, and the rest is read; a file without a single good line is an error.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal
from uuid import UUID

import pyarrow as pa

from wardround.client.connectors.codes import FHIR_SYSTEMS, with_own
from wardround.client.connectors.cohort_spec import CohortSpec, parse_spec
from wardround.client.connectors.events import Event, LeftOut, Person, Tally
from wardround.client.connectors.fhir_models import Reading
from wardround.client.connectors.parts import Part, lines, parts, reading
from wardround.client.connectors.sifting import kinds_of
from wardround.client.connectors.timeline import rows
from wardround.protocol.errors import UsageError

LONGEST_LINE: Final = 16 << 20
LONGEST_FILE: Final = 64 << 20
"""Bytes of a line, and of a bundle, which is parsed whole."""

_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "measurement": ("Observation",),
    "condition": ("Condition",),
    "encounter": ("Encounter",),
    "drug": ("MedicationRequest", "Medication"),
    "procedure": ("Procedure",),
    "death": (),
}


def read_fhir(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    cohort: Mapping[str, Any],
    time_zone: str = "UTC",
    systems: Mapping[str, str] | None = None,
    bounds: Literal["leave_out", "limit"] = "leave_out",
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """One row per patient, as ``cohort`` says; the columns that are asked for.

    Args:
        cohort: see cohort_spec.py.
        time_zone: of the site, for dates without a time.
        systems: short names of code systems beyond those of codes.py, by URL.
        bounds: what becomes of a quantity such as < 5: left out and counted, or the limit 5.
        tally: what was left out, when all batches are taken.

    Raises:
        UsageError: a wrong option, no such file, no FHIR resource in it, or a file that is not whole.
    """
    spec = parse_spec(dict(cohort) if isinstance(cohort, Mapping) else {})
    if bounds not in ("leave_out", "limit"):
        raise UsageError("option 'bounds' is not what it must be", "write leave_out or limit")
    tally = Tally() if tally is None else tally
    source = _Source(path, spec, columns, with_own(FHIR_SYSTEMS, systems), bounds == "limit", tally)
    yield from rows(spec, (), source, columns=columns, time_zone=time_zone, tally=tally)


class _Source:
    """Persons and events of an export, as often as it is read."""

    def __init__(
        self,
        path: Path,
        spec: CohortSpec,
        columns: Collection[str] | None,
        systems: Mapping[str, str],
        use_bounds: bool,
        tally: Tally,
    ) -> None:
        self.path, self.tally = path, tally
        self.systems, self.use_bounds = systems, use_bounds
        self.types = {"Patient"}
        for kind in kinds_of(spec, columns):
            self.types.update(_TYPES[kind])
        asked = [column for name, column in spec.columns.items() if columns is None or name in columns]
        if any(column.source == "site_of_care" for column in asked):
            self.types.add("Encounter")

    def __iter__(self) -> Iterator[Event | Person]:
        seen = False
        now = Reading(self.systems, self.use_bounds)
        # Drugs go before the requests that refer to them.
        for part in parts(self.path, (".ndjson", ".json"), "FHIR export", first="Medication"):
            with reading(part.name), part.open() as stream:
                for resource, place in self._resources(part, stream):
                    seen = True
                    yield from self._items(now, resource, place)
        if not seen:
            raise UsageError(f"'{self.path.name}' holds no FHIR resource", "check 'connector' and 'path' of this site")

    def _resources(self, part: Part, stream: IO[bytes]) -> Iterator[tuple[Mapping[str, Any], str]]:
        if part.name.lower().removesuffix(".gz").endswith(".json"):
            yield from self._whole(part, stream)
            return
        good = broken = 0
        for number, line in enumerate(lines(stream, LONGEST_LINE), 1):
            place = f"{part.name} line {number}"
            if line is None:
                broken += 1
                self.tally.add(f"a line of more than {LONGEST_LINE >> 20} MB", place)
                continue
            if not line.strip():
                continue
            resource = _parsed(line)
            if resource is None:
                broken += 1
                self.tally.add("a line that is no JSON object in UTF-8", place)
                continue
            good += 1
            kind = resource.get("resourceType")
            if kind == part.stem and kind not in self.types and kind != "Bundle":
                # A file of a bulk export holds one type of resources, which its name says.
                yield {}, place
                return
            yield resource, place
        if broken and not good:
            raise UsageError(
                f"'{part.name}' is no NDJSON: no line of it is a JSON object",
                "a bulk export is UTF-8, a resource a line",
            )

    def _whole(self, part: Part, stream: IO[bytes]) -> Iterator[tuple[Mapping[str, Any], str]]:
        text = stream.read(LONGEST_FILE + 1)
        if len(text) > LONGEST_FILE:
            self.tally.add(f"a bundle of more than {LONGEST_FILE >> 20} MB", part.name)
            return
        resource = _parsed(text)
        if resource is None:
            self.tally.add("a file that is no JSON object in UTF-8", part.name)
            return
        yield resource, part.name

    def _items(self, now: Reading, resource: Mapping[str, Any], place: str) -> Iterator[Event | Person]:
        now.urls.clear()
        if not resource:
            return
        if resource.get("resourceType") != "Bundle":
            yield from self._one(now, resource, place)
            return
        entries = resource.get("entry", [])
        if not isinstance(entries, list):
            self.tally.add("Bundle: not what FHIR R4 says", place)
            return
        inside: list[tuple[Mapping[str, Any], str]] = []
        for number, entry in enumerate(entries, 1):
            where = f"{place} entry {number}"
            body = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(body, dict):
                self.tally.add("Bundle: an entry without a resource", where)
                continue
            url = entry.get("fullUrl")
            if isinstance(url, str) and body.get("resourceType") in self.types:
                name = body.get("id")
                if name is None and url.startswith("urn:uuid:"):
                    name = _uuid(url.removeprefix("urn:uuid:"))
                    body = {**body, "id": name}
                if isinstance(name, str):
                    now.urls[url] = name
            inside.append((body, where))
        inside.sort(key=lambda found: found[0].get("resourceType") != "Medication")
        for body, where in inside:
            yield from self._one(now, body, where)

    def _one(self, now: Reading, resource: Mapping[str, Any], place: str) -> Iterator[Event | Person]:
        kind = resource.get("resourceType")
        if not isinstance(kind, str):
            self.tally.add("a resource that does not say its type", place)
        elif kind in self.types:
            try:
                yield from now.items(kind, resource)
            except LeftOut as reason:
                self.tally.add(f"{kind}: {reason}", place)


def _parsed(text: bytes) -> Mapping[str, Any] | None:
    """A JSON object in UTF-8, with or without its byte order mark; None: it is none."""
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
