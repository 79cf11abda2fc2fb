"""Synthetic patients with known effects, one block after the other, as rows of a table or as clinical events.

A block is 1,000 patients drawn as arrays from a generator of its own, so 100,000 patients never lie in memory, and
the first patients of a hospital are the same however many follow. The effects are in ``clinical``.

Events hold traps whose answer is known: an older and a later laboratory value beside the right one, a value that is
too old to count where the right one is missing, diagnoses before and after their window, drugs that ended long ago.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.simulations.synthetic import clinical
from wardround.simulations.synthetic.clinical import COLUMNS, CREATININE_MOLAR_MASS, LABORATORY, UNITS, VITALS, Concept
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.people import Person, people

BLOCK: Final = 1000
FIRST_DAY: Final = date(2015, 1, 1)
DAYS: Final = 2557
"""Admissions are from 2015 to 2021."""

Floats = npt.NDArray[np.float64]

SCHEMA: Final = pa.schema(
    [
        ("patient", pa.string()),
        *((name, pa.int64()) for name in ("age", "sex", "systolic", "heart_rate")),
        *((name, pa.float64()) for name in LABORATORY),
        *((name, pa.int64()) for name in ("diabetes", "atrial_fibrillation", "furosemide", "kidney_injury")),
        *((name, pa.int64()) for name in ("follow_up_days", "died")),
    ]
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a patient. ``kind`` is one of CohortSpec's; ``value`` is in ``unit`` (UCUM)."""

    kind: str
    concept: Concept
    day: date
    value: float | None = None
    unit: str | None = None

    @property
    def hour(self) -> int:
        """At which it was written down (UTC): the index at noon, all else in the morning.

        So what was measured on the day of the index lies before it, whether one counts days or hours.
        """
        return 12 if self.concept == clinical.HEART_FAILURE else 9


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient with everything that a clinical system would hold.

    Args:
        id: the patient's id at the hospital, in every format.
        row: the patient's row of the table, None where a value is missing.
        events: conditions, measurements and drugs, by day.
        admitted: the day of the index; ``discharged`` is the end of that stay.
    """

    id: str
    number: int
    person: Person
    row: dict[str, Any]
    events: tuple[Event, ...]
    admitted: date
    discharged: date
    died: date | None


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One block: columns of the table as arrays (count,), and where a laboratory value is missing."""

    columns: dict[str, Any]
    missing: dict[str, npt.NDArray[np.bool_]]

    def cut(self, count: int) -> "_Drawn":
        return _Drawn(*({name: cells[:count] for name, cells in part.items()} for part in (self.columns, self.missing)))


def batches(hospital: Hospital, count: int) -> Iterator[pa.RecordBatch]:
    """The table of the hospital's first ``count`` patients, ``SCHEMA``, a block at a time."""
    for block, size in _blocks(count):
        drawn = _draw(hospital, block).cut(size)
        arrays = [
            pa.array(drawn.columns[field.name], field.type, mask=drawn.missing.get(field.name)) for field in SCHEMA
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def patients(hospital: Hospital, count: int) -> Iterator[Patient]:
    """The same patients as ``batches``, one at a time, with their events."""
    for block, size in _blocks(count):
        yield from _patients(hospital, block, _draw(hospital, block), size)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for block in range(-(-count // BLOCK)):
        yield block, min(BLOCK, count - block * BLOCK)


def _draw(hospital: Hospital, block: int) -> _Drawn:
    random = hospital.random("patients", block)
    columns: dict[str, Any] = {
        "patient": np.array([patient_id(hospital, block * BLOCK + number) for number in range(BLOCK)], object),
        "age": np.clip(np.rint(random.normal(hospital.age_mean, 12, BLOCK)), 18, 100).astype(np.int64),
        "sex": (random.random(BLOCK) < hospital.male_share).astype(np.int64),
        "systolic": np.clip(np.rint(random.normal(132, 22, BLOCK)), 60, 250).astype(np.int64),
        "heart_rate": np.clip(np.rint(random.normal(84, 17, BLOCK)), 30, 200).astype(np.int64),
        "creatinine": np.clip(hospital.creatinine_median * np.exp(random.normal(0, 0.35, BLOCK)), 0.3, 12).round(2),
        "hemoglobin": np.clip(random.normal(12.8, 1.9, BLOCK), 4, 20).round(1),
        "potassium": np.clip(random.normal(4.3, 0.55, BLOCK), 2.5, 7).round(1),
        "diabetes": (random.random(BLOCK) < hospital.diabetes_share).astype(np.int64),
        "atrial_fibrillation": (random.random(BLOCK) < 0.35).astype(np.int64),
        "furosemide": (random.random(BLOCK) < 0.45).astype(np.int64),
    }
    log_odds = clinical.INTERCEPT + _effect(columns, clinical.EFFECTS)
    columns["kidney_injury"] = (random.random(BLOCK) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    rate = clinical.BASE_RATE * np.exp(_effect(columns, clinical.HAZARDS))
    death = np.ceil(random.exponential(1.0, BLOCK) / rate).astype(np.int64)
    last_contact = random.integers(clinical.FOLLOW_UP[0], clinical.FOLLOW_UP[1] + 1, BLOCK)
    columns["follow_up_days"] = np.maximum(np.minimum(death, last_contact), 1)
    columns["died"] = (death <= last_contact).astype(np.int64)
    missing = {name: random.random(BLOCK) < hospital.missing_share for name in LABORATORY}
    return _Drawn(columns, missing)


def _effect(columns: dict[str, Any], effects: dict[str, float]) -> Floats:
    total = np.zeros(BLOCK)
    for column in COLUMNS:
        center, scale = (column.center, column.scale) if column.type == "number" else (0.0, 1.0)
        total += effects.get(column.name, 0.0) * (columns[column.name] - center) / scale
    return total


def patient_id(hospital: Hospital, number: int) -> str:
    """The id at the hospital of its patient ``number``, from 0."""
    return f"{hospital.code}-{number + 1:07d}"


def _patients(hospital: Hospital, block: int, drawn: _Drawn, size: int) -> Iterator[Patient]:
    random = hospital.random("events", block)
    columns = {name: cells.tolist() for name, cells in drawn.columns.items()}
    missing = {name: cells.tolist() for name, cells in drawn.missing.items()}
    admitted = [FIRST_DAY + timedelta(int(day)) for day in random.integers(0, DAYS, BLOCK)]
    births = [
        _years_before(day, age) - timedelta(int(past))
        for day, age, past in zip(admitted, columns["age"], random.integers(2, 363, BLOCK), strict=True)
    ]
    persons = people(random, ["M" if sex else "F" for sex in columns["sex"]], births, hospital.name)
    # For each measurement three values beside the right one are possible: older, later, and far too old.
    others = {name: random.normal(0, 1, (BLOCK, 3)).tolist() for name in UNITS}
    days = {name: random.integers((1, 200, 1), (11, 301, 21), (BLOCK, 3)).tolist() for name in UNITS}
    chances, when = random.random((BLOCK, 6)).tolist(), random.integers(0, 10_000, (BLOCK, 6)).tolist()
    for number in range(size):
        row = {name: cells[number] for name, cells in columns.items()}
        absent = {name for name in LABORATORY if missing[name][number]}
        day, follow_up = admitted[number], row["follow_up_days"]
        found = _diagnoses(row, chances[number], when[number])
        found.extend(_drugs(row, chances[number], when[number]))
        for name, concept in (VITALS | LABORATORY).items():
            found.extend(
                _measurements(hospital, name, concept, row, name in absent, days[name][number], others[name][number])
            )
        found.sort(key=lambda item: item[1])
        yield Patient(
            id=row["patient"],
            number=block * BLOCK + number,
            person=persons[number],
            row=row | dict.fromkeys(absent),
            events=tuple(
                Event(kind, concept, day + timedelta(after), value, unit) for kind, after, concept, value, unit in found
            ),
            admitted=day,
            discharged=day + timedelta(min(3 + when[number][5] % 12, follow_up)),
            died=day + timedelta(follow_up) if row["died"] else None,
        )


_Found = tuple[str, int, Concept, float | None, str | None]
"""Kind, days after the admission, concept, value, unit."""


def _diagnoses(row: dict[str, Any], chance: list[float], when: list[int]) -> list[_Found]:
    last = row["follow_up_days"]

    def condition(concept: Concept, day: int) -> _Found:
        return ("condition", day, concept, None, None)

    found = [condition(clinical.HEART_FAILURE, 0)]
    for name, concept, draw in (
        ("diabetes", clinical.DIABETES, 0),
        ("atrial_fibrillation", clinical.ATRIAL_FIBRILLATION, 1),
    ):
        if row[name]:
            found.append(condition(concept, -10 - when[draw] % 2000))
        elif chance[draw] < 0.1 and last > 60:
            found.append(condition(concept, 40 + when[draw] % 20))
    if row["kidney_injury"]:
        found.append(condition(clinical.KIDNEY_INJURY, 1 + when[2] % min(clinical.OUTCOME_DAYS, last)))
    if chance[2] < 0.08:
        found.append(condition(clinical.KIDNEY_INJURY, -30 - when[3] % 900))
    if chance[3] < 0.05 and last > 60:
        found.append(condition(clinical.KIDNEY_INJURY, 40 + when[3] % 20))
    return found


def _drugs(row: dict[str, Any], chance: list[float], when: list[int]) -> list[_Found]:
    if row["furosemide"]:
        return [("drug", -1 - when[4] % 80, clinical.FUROSEMIDE, None, None)]
    if chance[4] < 0.15:
        return [("drug", -100 - when[4] % 200, clinical.FUROSEMIDE, None, None)]
    return []


_SPREAD: Final = {"systolic": 22.0, "heart_rate": 17.0, "creatinine": 0.3, "hemoglobin": 1.5, "potassium": 0.5}


def _measurements(
    hospital: Hospital,
    name: str,
    concept: Concept,
    row: dict[str, Any],
    absent: bool,
    days: list[int],
    other: list[float],
) -> Iterator[_Found]:
    def at(day: int, value: float) -> _Found:
        written, code, unit = _local(hospital, name, concept, value)
        return ("measurement", day, code, written, unit)

    def near(draw: float) -> float:
        column = next(column for column in COLUMNS if column.name == name)
        assert column.type == "number"
        digits = 2 if name == "creatinine" else 1 if name in LABORATORY else 0
        value = float(row[name]) + _SPREAD[name] * draw
        return round(min(max(value, column.minimum), column.maximum), digits)

    if absent:
        yield at(-420, near(other[2]))
        return
    yield at(0 if name in VITALS else -days[0], float(row[name]))
    yield at(-days[1], near(other[0]))
    yield at(min(days[2], row["follow_up_days"]), near(other[1]))


def _local(hospital: Hospital, name: str, concept: Concept, value: float) -> tuple[float, Concept, str]:
    """The value as this hospital's laboratory writes it."""
    if name == "creatinine" and hospital.creatinine_unit == "umol/L":
        return round(value * 10_000 / CREATININE_MOLAR_MASS, 2), clinical.CREATININE_MOLES, "umol/L"
    if name == "hemoglobin" and hospital.hemoglobin_unit == "g/L":
        return round(value * 10, 1), concept, "g/L"
    return value, concept, UNITS[name]


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)
