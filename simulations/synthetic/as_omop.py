"""Patients as OMOP CDM 5.4 in CSV files, with the concepts and ancestors that a cohort needs, and a script for psql.

Tables and columns are those of OHDSI's Common Data Model 5.4; optional columns that would be empty are
written for the tables that a cohort reads. Units are OHDSI's standard concepts of UCUM.
"""

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, Final

from wardround.client.settings import DataSource
from wardround.simulations.synthetic import clinical
from wardround.simulations.synthetic.clinical import Concept, cohort_options
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import Event, Patient, patients

EHR: Final = 32817
INPATIENT: Final = 9201
UNIT_CONCEPTS: Final = {
    "mg/dL": (8840, "milligram per deciliter"),
    "umol/L": (8749, "micromole per liter"),
    "g/dL": (8713, "gram per deciliter"),
    "g/L": (8636, "gram per liter"),
    "mmol/L": (8753, "millimole per liter"),
    "mm[Hg]": (8876, "millimeter mercury column"),
    "/min": (8541, "per minute"),
}
GENDERS: Final = {"M": (8507, "MALE"), "F": (8532, "FEMALE")}
VOCABULARIES: Final = {"loinc": "LOINC", "snomed": "SNOMED", "rxnorm": "RxNorm"}

TABLES: Final = {
    "person": "person_id gender_concept_id year_of_birth month_of_birth day_of_birth birth_datetime race_concept_id "
    "ethnicity_concept_id location_id provider_id care_site_id person_source_value gender_source_value",
    "observation_period": "observation_period_id person_id observation_period_start_date observation_period_end_date "
    "period_type_concept_id",
    "visit_occurrence": "visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime "
    "visit_end_date visit_end_datetime visit_type_concept_id care_site_id visit_source_value",
    "condition_occurrence": "condition_occurrence_id person_id condition_concept_id condition_start_date "
    "condition_start_datetime condition_end_date condition_type_concept_id visit_occurrence_id condition_source_value "
    "condition_source_concept_id",
    "drug_exposure": "drug_exposure_id person_id drug_concept_id drug_exposure_start_date "
    "drug_exposure_start_datetime drug_exposure_end_date drug_type_concept_id quantity days_supply drug_source_value "
    "drug_source_concept_id",
    "measurement": "measurement_id person_id measurement_concept_id measurement_date measurement_datetime "
    "measurement_type_concept_id operator_concept_id value_as_number value_as_concept_id unit_concept_id "
    "visit_occurrence_id measurement_source_value measurement_source_concept_id unit_source_value value_source_value",
    "death": "person_id death_date death_datetime death_type_concept_id cause_concept_id",
    "care_site": "care_site_id care_site_name place_of_service_concept_id care_site_source_value",
    "concept": "concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept concept_code "
    "valid_start_date valid_end_date invalid_reason",
    "concept_ancestor": "ancestor_concept_id descendant_concept_id min_levels_of_separation max_levels_of_separation",
    "cdm_source": "cdm_source_name cdm_source_abbreviation cdm_holder source_description cdm_version "
    "vocabulary_version",
}

_Row = Callable[[list[Any]], Any]


def write_omop(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/omop/<table>.csv`` of a site's folder, and ``data/omop/load.sql`` that loads them into PostgreSQL."""
    target = folder / "data" / "omop"
    target.mkdir()
    with ExitStack() as stack:
        rows: dict[str, _Row] = {}
        for table, columns in TABLES.items():
            file = stack.enter_context((target / f"{table}.csv").open("w", encoding="utf-8", newline=""))
            rows[table] = csv.writer(file, lineterminator="\n").writerow
            rows[table](columns.split())
        rows["care_site"]([hospital.number + 1, hospital.name, 8717, hospital.code])
        rows["cdm_source"]([f"Synthetic {hospital.name}", hospital.code, "nobody", "invented patients", "5.4", "none"])
        for row in _vocabulary():
            rows["concept"](row)
        for row in _ancestors():
            rows["concept_ancestor"](row)
        events = 0
        for patient in patients(hospital, count):
            events = _write_patient(rows, hospital, patient, events)
    (target / "load.sql").write_text(_load_script(), encoding="utf-8")
    return DataSource(connector="omop", path="data/omop", options={"cohort": cohort_options(descendants=True)})


def _write_patient(rows: dict[str, _Row], hospital: Hospital, patient: Patient, events: int) -> int:
    """Write one person; ``events`` were written before. Returns how many there are now: their ids."""
    number, born, care_site = patient.number + 1, patient.person.birth, hospital.number + 1
    gender, sex = GENDERS[patient.person.sex][0], patient.person.sex
    birth = (born.year, born.month, born.day, f"{born} 00:00:00")
    rows["person"]([number, gender, *birth, 0, 0, "", "", care_site, patient.id, sex])
    first, last = patient.events[0].day, max(patient.events[-1].day, patient.discharged)
    rows["observation_period"]([number, number, first, patient.died or last, EHR])
    stay = (patient.admitted, f"{patient.admitted} 08:00:00", patient.discharged, f"{patient.discharged} 16:00:00")
    rows["visit_occurrence"]([number, number, INPATIENT, *stay, EHR, care_site, "IMP"])
    if patient.died is not None:
        rows["death"]([number, patient.died, f"{patient.died} 20:00:00", EHR, 0])
    for event in patient.events:
        events += 1
        stay_id = number if patient.admitted <= event.day <= patient.discharged else ""
        rows[_TABLE_OF[event.kind]](_event_row(events, number, event, stay_id))
    return events


_TABLE_OF: Final = {"condition": "condition_occurrence", "drug": "drug_exposure", "measurement": "measurement"}


def _event_row(event_id: int, person: int, event: Event, stay: int | str) -> list[Any]:
    concept, code = event.concept.concept_id, event.concept.code
    start = [event_id, person, concept, event.day, f"{event.day} {event.hour:02d}:00:00"]
    if event.kind == "condition":
        return [*start, "", EHR, stay, code, concept]
    if event.kind == "drug":
        return [*start, date.fromordinal(event.day.toordinal() + 29), EHR, 30, 30, code, concept]
    assert event.unit is not None
    unit = UNIT_CONCEPTS[event.unit][0]
    return [*start, EHR, "", event.value, "", unit, stay, code, concept, event.unit, event.value]


def concepts() -> tuple[Concept, ...]:
    """Every concept that a synthetic event or a cohort names, parents included."""
    found = (
        *clinical.VITALS.values(),
        *clinical.LABORATORY.values(),
        clinical.CREATININE_MOLES,
        clinical.KIDNEY_INJURY,
        *clinical.PARENTS,
        *clinical.PARENTS.values(),
    )
    return tuple(dict.fromkeys(found))


def _vocabulary() -> Iterator[list[Any]]:
    valid = ("1970-01-01", "2099-12-31", "")
    for item in concepts():
        vocabulary = VOCABULARIES[item.system]
        yield [item.concept_id, item.name, item.domain, vocabulary, item.concept_class, "S", item.code, *valid]
    for code, (number, name) in UNIT_CONCEPTS.items():
        yield [number, name, "Unit", "UCUM", "Unit", "S", code, *valid]
    for code, (number, name) in GENDERS.items():
        yield [number, name, "Gender", "Gender", "Gender", "S", code, *valid]
    yield [INPATIENT, "Inpatient Visit", "Visit", "Visit", "Visit", "S", "IP", *valid]
    yield [EHR, "EHR", "Type Concept", "Type Concept", "Type Concept", "S", "OMOP4976890", *valid]


def _ancestors() -> Iterator[list[int]]:
    for item in concepts():
        yield [item.concept_id, item.concept_id, 0, 0]
    for child, parent in clinical.PARENTS.items():
        yield [parent.concept_id, child.concept_id, 1, 1]


def _load_script() -> str:
    lines = []
    for table, columns in TABLES.items():
        typed = ", ".join(f"{name} {_sql_type(name)}" for name in columns.split())
        lines.append(f"CREATE TABLE {table} ({typed});")
        lines.append(f"\\copy {table} FROM '{table}.csv' WITH (FORMAT csv, HEADER)")
    return "\n".join(lines) + "\n"


def _sql_type(column: str) -> str:
    if column.endswith("_id") and column not in ("domain_id", "vocabulary_id", "concept_class_id"):
        return "integer"
    if column.endswith("_date"):
        return "date"
    if column.endswith("_datetime"):
        return "timestamp"
    if column.endswith("_of_birth") or column == "days_supply" or column.endswith("_of_separation"):
        return "integer"
    return "numeric" if column in ("value_as_number", "quantity") else "varchar"
