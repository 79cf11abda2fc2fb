"""From the events of a clinical system to one row per patient, as a ``CohortSpec`` says.

A reader (FHIR, HL7 v2, OMOP) yields ``Person`` and ``Event`` in any order. Of each patient and column only what the
reduction needs is kept, so memory grows with patients times columns and not with events; beside it lie 8 bytes for
each event that a column takes and that has a key, and the events of which there are several versions. The source is
read once; twice when there is an index; and once more when an event turns out to come in several versions.

Times are compared in UTC. A date without a time is the local midnight of the site. A window of days is counted from
the moment of the index in steps of 24 hours, both ends included: a result later on the index day is after the index.
Of two events at the same time ``first`` takes the smaller and ``last`` the larger value, so that a row does not depend
on the order of reading.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date
from typing import TypeVar

import numpy as np
import pyarrow as pa

from wardround.client.connectors.cohort_spec import CohortSpec
from wardround.client.connectors.events import Clock, Event, Person, Tally, Version
from wardround.client.connectors.reduction import writable
from wardround.client.connectors.sifting import Indexes, Plan, Reduction, Sink
from wardround.client.connectors.table import BATCH_ROWS

__all__ = ["Clock", "Event", "Person", "Tally", "rows"]


_S = TypeVar("_S", bound=Sink)


def rows(
    spec: CohortSpec,
    persons: Iterable[Person],
    events: Iterable[Event | Person],
    *,
    index_events: Iterable[Event | Person] | None = None,
    columns: Collection[str] | None = None,
    time_zone: str = "UTC",
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """One row per patient, in the order of the patients' ids; at least one batch, which may be empty.

    The patient is a string; numbers are float64; ``count`` and ``exists`` int64; age int64; everything else a string.
    A measurement that names neither a unit nor min, max or mean is a string, as the source writes it.

    Args:
        persons: read once.
        events: read as often as needed (so no bare iterator); persons may lie among them.
        index_events: those among which the index lies, where a source can tell them apart; None: ``events``.
        columns: only these; None: all.
        time_zone: IANA name of the site's zone, such as Europe/Berlin.
        tally: counts what is left out. It is cleared when the source is read again.

    Raises:
        UsageError: the specification asks for a window without an index, names what is no UCUM unit, or reads values
            in several units into a column that names none; an unknown time zone.
    """
    tally = Tally() if tally is None else tally
    clock = Clock(time_zone)
    plan = Plan(spec, columns)
    if iter(events) is events:
        raise TypeError("events must be readable again: pass a collection, not an iterator")
    people = _People()
    for person in persons:
        people.add(person)
    if not plan.reads_events:
        tally.clear()
        people.add_all(item for item in events if isinstance(item, Person))
        yield from _batches(plan, people, Reduction(plan, clock, tally, None), None, clock, tally)
        return
    index: dict[str, float] | None = None
    if spec.index is not None:
        among = events if index_events is None else index_events
        index = _read(among, people, tally, lambda: Indexes(plan, clock, tally)).times
    reduced = _read(events, people, tally, lambda: Reduction(plan, clock, tally, index))
    yield from _batches(plan, people, reduced, index, clock, tally)


class _People:
    """Persons, each field by its largest version."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.fields: tuple[dict[str, tuple[Version, date | str]], ...] = ({}, {}, {})

    def add_all(self, persons: Iterable[Person]) -> None:
        for person in persons:
            self.add(person)

    def add(self, person: Person) -> None:
        if person.listed:
            self.known.add(person.patient)
        values = (person.birth, person.sex, person.site_of_care)
        for value, kept in zip(values, self.fields, strict=True):
            if value is not None:
                old = kept.get(person.patient)
                if old is None or person.version >= old[0]:
                    kept[person.patient] = (person.version, value)

    def birth(self, patient: str) -> date | None:
        found = self.fields[0].get(patient)
        return found[1] if found and isinstance(found[1], date) else None

    def word(self, about: str, patient: str) -> str | None:
        found = self.fields[1 if about == "sex" else 2].get(patient)
        return writable(str(found[1])) if found else None


def _read(events: Iterable[Event | Person], people: _People, tally: Tally, make: Callable[[], _S]) -> _S:
    """What counts of the events, in a fresh sink; read again when some come in several versions.

    The first reading takes every version and notes 8 bytes of each key. Keys whose bytes come once have one version,
    so where none comes twice and nothing is withdrawn the first reading was right. Otherwise the second reading holds
    back the events of those keys until all are read.
    """
    sink, keys = make(), array("q")
    tally.clear()
    for item in events:
        if isinstance(item, Person):
            people.add(item)
            continue
        sink.see(item)
        if sink.takes(item):
            if item.key:
                keys.append(hash(item.key))
            if not item.void:
                sink.add(item)
    order = np.sort(np.frombuffer(keys, np.int64))
    del keys
    repeated = frozenset(order[1:][order[1:] == order[:-1]].tolist())
    if not repeated:
        return sink
    sink = make()
    tally.clear()
    held: dict[str, Event] = {}
    for item in events:
        if isinstance(item, Person):
            continue
        if item.key and hash(item.key) in repeated and sink.takes(item):
            old = held.get(item.key)
            if old is None or item.version >= old.version:
                held[item.key] = item
            continue
        sink.see(item)
        if not item.void and sink.takes(item):
            sink.add(item)
    for event in held.values():
        sink.see(event)
        if not event.void:
            sink.add(event)
    return sink


def _batches(
    plan: Plan,
    people: _People,
    reduced: Reduction,
    index: dict[str, float] | None,
    clock: Clock,
    tally: Tally,
) -> Iterator[pa.RecordBatch]:
    strangers = sum(
        taken for patient, taken in zip(reduced.number, reduced.taken, strict=True) if patient not in people.known
    )
    if strangers:
        tally.add("an event of a patient who is not in the source", times=strangers)
    patients = sorted(people.known)
    if index is not None:
        there = [patient for patient in patients if patient in index]
        if len(there) < len(patients):
            tally.add("a patient without the index", times=len(patients) - len(there))
        patients = there
    types = {plan.spec.patient: pa.string()}
    types |= {name: pa.int64() if about == "age" else pa.string() for name, about in plan.about.items()}
    types |= {name: kept.type for name, kept in reduced.columns.items()}
    schema = pa.schema([(name, types[name]) for name in plan.names])
    for first in range(0, max(1, len(patients)), BATCH_ROWS):
        some = patients[first : first + BATCH_ROWS]
        numbers = [reduced.number.get(patient) for patient in some]
        arrays = []
        for name in plan.names:
            if name in reduced.columns:
                arrays.append(reduced.columns[name].cells(numbers))
            elif name == plan.spec.patient:
                arrays.append(pa.array(some, pa.string()))
            elif plan.about[name] == "age":
                arrays.append(pa.array([_age(p, people, reduced, index, clock, tally) for p in some], pa.int64()))
            else:
                arrays.append(pa.array([people.word(plan.about[name], patient) for patient in some], pa.string()))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _age(
    patient: str, people: _People, reduced: Reduction, index: dict[str, float] | None, clock: Clock, tally: Tally
) -> int | None:
    """Whole years at the index, or at the last event; None: not known."""
    birth = people.birth(patient)
    number = reduced.number.get(patient)
    seconds = index[patient] if index is not None else -np.inf if number is None else reduced.last[number]
    if birth is None or seconds == -np.inf:
        return None
    day = clock.day(seconds)
    if day < birth:
        tally.add("age: born after the moment that counts")
        return None
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
