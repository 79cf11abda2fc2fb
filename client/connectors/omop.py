"""OMOP Common Data Model 5.3 and 5.4: in a database, or as the CSV files of an export (folder or zip).

A code of the cohort specification stands for its concept and all that lie below it, where the vocabulary tables are
there; it is found in a record's standard concept and in its source concept. Units are OMOP's concepts of UCUM. What an
export leaves out (a table, a column, the vocabulary) is taken as empty, except the persons.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from wardround.client.connectors.cohort_spec import CohortSpec, parse_spec
from wardround.client.connectors.cohort_spec import Event as EventColumn
from wardround.client.connectors.events import BOUND, NOT_TIME, Event, Person, Tally
from wardround.client.connectors.omop_tables import Tables, opened
from wardround.client.connectors.sifting import KEPT, kinds_of
from wardround.client.connectors.timeline import rows
from wardround.protocol.errors import UsageError

VOCABULARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "loinc": ("LOINC",),
    "snomed": ("SNOMED",),
    "rxnorm": ("RxNorm", "RxNorm Extension"),
    "atc": ("ATC",),
    "icd10": ("ICD10", "ICD10CM", "ICD10GM"),
    "icd9": ("ICD9CM",),
    "cpt": ("CPT4",),
}
"""Systems of the specification, and the vocabularies that hold them."""

SEXES: Final = {"8507": "male", "8532": "female"}
UNBOUNDED: Final = frozenset({"", "0", "4172703"})
"""Operators that leave a value as it is: none, and 'equals'."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where the events of one kind lie: table, concept, source concept, source value, date, date and time."""

    table: str
    concept: str
    source_concept: str
    source_value: str
    day: str
    moment: str

    @property
    def columns(self) -> tuple[str, ...]:
        return ("person_id", self.concept, self.source_concept, self.source_value, self.day, self.moment)


KINDS: Final[Mapping[str, _Kind]] = {
    "condition": _Kind(
        "condition_occurrence", "condition_concept_id", "condition_source_concept_id", "condition_source_value",
        "condition_start_date", "condition_start_datetime",
    ),
    "measurement": _Kind(
        "measurement", "measurement_concept_id", "measurement_source_concept_id", "measurement_source_value",
        "measurement_date", "measurement_datetime",
    ),
    "drug": _Kind(
        "drug_exposure", "drug_concept_id", "drug_source_concept_id", "drug_source_value",
        "drug_exposure_start_date", "drug_exposure_start_datetime",
    ),
    "encounter": _Kind(
        "visit_occurrence", "visit_concept_id", "visit_source_concept_id", "visit_source_value",
        "visit_start_date", "visit_start_datetime",
    ),
    "procedure": _Kind(
        "procedure_occurrence", "procedure_concept_id", "procedure_source_concept_id", "procedure_source_value",
        "procedure_date", "procedure_datetime",
    ),
    "death": _Kind("death", "cause_concept_id", "cause_source_concept_id", "cause_source_value",
                   "death_date", "death_datetime"),
}  # fmt: skip

VALUES: Final = (
    "value_as_number",
    "value_as_concept_id",
    "unit_concept_id",
    "unit_source_value",
    "operator_concept_id",
)


def read_omop(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    cohort: Mapping[str, Any],
    time_zone: str = "UTC",
    schema: str | None = None,
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """One row per patient, as ``cohort`` says; the columns that are asked for.

    Args:
        path: a folder or zip of CSV files, or the YAML file of a database (docs/databases.md).
        cohort: see cohort_spec.py; its ``patient`` is OMOP's person_id.
        time_zone: of the site, for times without a zone.
        schema: of the tables in a database.
        tally: what was left out, when all batches are taken.

    Raises:
        UsageError: a wrong option, no persons, or a code that the vocabulary does not have.
        Unavailable: the database cannot be reached, or broke off.
    """
    spec = parse_spec(dict(cohort) if isinstance(cohort, Mapping) else {})
    tally = Tally() if tally is None else tally
    with opened(path, schema) as tables:
        source = _Source(tables, spec, columns, tally)
        persons = _persons(tables, spec, columns)
        index = None if spec.index is None else _Of(source, (spec.index.kind,))
        events = _Of(source, source.kinds)
        yield from rows(spec, persons, events, index_events=index, columns=columns, time_zone=time_zone, tally=tally)


def _persons(tables: Tables, spec: CohortSpec, columns: Collection[str] | None) -> Iterator[Person]:
    asked = {column.source for name, column in spec.columns.items() if columns is None or name in columns}
    named = tables.rows("care_site", ("care_site_id", "care_site_name")) if "site_of_care" in asked else ()
    sites = {row[0]: row[1] for row in named}
    wanted = ("person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth", "care_site_id")
    found = False
    for person, gender, year, month, day, site in tables.rows("person", wanted):
        found = True
        sex = SEXES.get(gender, "other" if gender not in ("", "0") else None)
        yield Person(person, _birth(year, month, day), sex, sites.get(site) or site or None)
    if not found and not tables.has("person"):
        raise UsageError("the OMOP source has no table 'person'", "check 'path', and 'schema' of a database")


def _birth(year: str, month: str, day: str) -> date | None:
    """Where only the year is known 1 July, where only the month is known its 15th."""
    try:
        if not month:
            return date(int(float(year)), 7, 1)
        return date(int(float(year)), int(float(month)), int(float(day)) if day else 15)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class _Of:
    """Events of some kinds, as often as they are asked for."""

    source: "_Source"
    kinds: Sequence[str]

    def __iter__(self) -> Iterator[Event]:
        for kind in self.kinds:
            yield from self.source.of(kind)


class _Source:
    """The tables and the concepts that the specification names."""

    def __init__(self, tables: Tables, spec: CohortSpec, columns: Collection[str] | None, tally: Tally) -> None:
        self.tables, self.tally = tables, tally
        self.kinds = sorted(kinds_of(spec, columns))
        self.codes = {kind: _codes(spec, kind) for kind in self.kinds}
        wanted = {code for codes in self.codes.values() for code in codes or ()}
        self.known, self.local = concepts(tables, wanted)
        self.units = {
            id_: code
            for id_, code, vocabulary in tables.rows("concept", ("concept_id", "concept_code", "vocabulary_id"))
            if vocabulary == "UCUM"
        } if "measurement" in self.kinds else {}  # fmt: skip

    def of(self, kind: str) -> Iterator[Event]:
        """The events of one kind."""
        at = KINDS[kind]
        codes, measured = self.codes[kind], kind == "measurement"
        ids = None
        if codes is not None and not any(code.startswith("local:") for code in codes):
            ids = {id_ for id_, of in self.known.items() if codes & set(of)}
        wanted = (*at.columns, *VALUES) if measured else at.columns
        names = dict[tuple[str, str, str], tuple[str, ...]]()
        for row in self.tables.rows(at.table, wanted, (at.concept, at.source_concept), ids):
            person, concept, source, said, day, moment = row[:6]
            at_concept = (concept, source, said)
            if (named := names.get(at_concept)) is None:
                named = self._named(*at_concept)
                if len(names) < KEPT:
                    names[at_concept] = named
            if codes is not None and codes.isdisjoint(named):
                continue
            time = _time(moment) or _time(day)
            if time is None and (moment or day):
                self.tally.add(NOT_TIME, at.table)
            if measured:
                yield self._measured(person, named, time, row[6:])
            else:
                yield Event(person, kind, named, time)  # type: ignore[arg-type]

    def _named(self, concept: str, source: str, said: str) -> tuple[str, ...]:
        found = dict.fromkeys((*self.known.get(concept, ()), *self.known.get(source, ())))
        if said in self.local:
            found[f"local:{said}"] = None
        return tuple(found)

    def _measured(self, person: str, named: tuple[str, ...], time: Any, values: Sequence[str]) -> Event:
        number, concept, unit, unit_said, operator = values
        value = None
        try:
            value = float(number) if number else None
        except ValueError:
            self.tally.add("a value that is no number", "measurement")
        text = f"concept:{concept}" if value is None and concept not in ("", "0") else None
        problem = BOUND if operator not in UNBOUNDED else ""
        named_unit = self.units.get(unit) or unit_said or None
        return Event(person, "measurement", named, time, value, text, named_unit, problem=problem)


def _codes(spec: CohortSpec, kind: str) -> frozenset[str] | None:
    """Every code that a column or the index asks of ``kind``; None: any event of it counts."""
    asked: list[tuple[str, ...]] = [
        column.codes for column in spec.columns.values() if isinstance(column, EventColumn) and column.source == kind
    ]
    if spec.index is not None and spec.index.kind == kind:
        asked.append(spec.index.codes)
    return None if any(not codes for codes in asked) else frozenset(code for codes in asked for code in codes)


def concepts(tables: Tables, codes: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """(codes by concept id, with all that lie below each; local codes).

    Raises:
        UsageError: a system that is no vocabulary here, or a code that the vocabulary does not have.
    """
    of, local, named = defaultdict[str, set[str]](set), set[str](), dict[tuple[str, str], str]()
    for code in sorted(codes):
        system, _, value = code.partition(":")
        if system == "concept":
            of[value].add(code)
        elif system == "local":
            local.add(value)
        elif system in VOCABULARIES:
            named |= {(vocabulary, value): code for vocabulary in VOCABULARIES[system]}
        else:
            raise UsageError(f"the system of '{code}' is no vocabulary of OMOP here", f"one of {_systems()}")
    if named:
        for id_, code, vocabulary in tables.rows("concept", ("concept_id", "concept_code", "vocabulary_id")):
            if (vocabulary, code) in named:
                of[id_].add(named[vocabulary, code])
        found = {code for known in of.values() for code in known}
        missing = sorted(set(named.values()) - found)
        if missing:
            raise UsageError(f"the vocabulary has no concept '{missing[0]}'", "check the code, or write concept:NUMBER")
    roots = {id_: frozenset(known) for id_, known in of.items()}
    below = ("ancestor_concept_id", "descendant_concept_id")
    for ancestor, descendant in tables.rows("concept_ancestor", below, ("ancestor_concept_id",), set(roots)):
        of[descendant] |= roots.get(ancestor, frozenset())
    return {id_: tuple(sorted(known)) for id_, known in of.items()}, frozenset(local)


def _systems() -> str:
    return ", ".join(("concept", "local", *VOCABULARIES))


def _time(cell: str) -> datetime | date | None:
    """ISO 8601, with or without a time; None: empty or not understood."""
    try:
        if len(cell) == 10:
            return date.fromisoformat(cell)
        if len(cell) == 8 and cell.isdigit():
            return date.fromisoformat(cell)
        return datetime.fromisoformat(cell) if cell else None
    except ValueError:
        return None
