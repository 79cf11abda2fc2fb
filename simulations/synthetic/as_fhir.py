"""Patients as FHIR R4: the NDJSON files of a bulk export, or one bundle a patient.

Resources and code systems are those of HL7 FHIR R4 (4.0.1). Every fiftieth patient has one Observation that was
``entered-in-error`` with a wild value: whoever reads it must leave it out.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, Final

from wardround.client.settings import DataSource
from wardround.simulations.synthetic.clinical import HEART_FAILURE, LABORATORY, Concept, cohort_options
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import Event, Patient, patients

SYSTEMS: Final = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
UCUM: Final = "http://unitsofmeasure.org"
TYPES: Final = ("Organization", "Patient", "Encounter", "Condition", "Observation", "MedicationRequest")
IN_ERROR: Final = 50

Resource = dict[str, Any]


def write_fhir(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/fhir/<Type>.ndjson`` of a site's folder."""
    target = folder / "data" / "fhir"
    target.mkdir()
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context((target / f"{kind}.ndjson").open("w", encoding="utf-8", newline="\n"))
            for kind in TYPES
        }
        files["Organization"].write(_line(_organization(hospital)))
        for patient in patients(hospital, count):
            for resource in resources(hospital, patient):
                files[resource["resourceType"]].write(_line(resource))
    return DataSource(connector="fhir", path="data/fhir", options={"cohort": cohort_options()})


def write_bundles(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/fhir/<patient>.json`` of a site's folder: a collection of the patient's resources."""
    target = folder / "data" / "fhir"
    target.mkdir()
    for patient in patients(hospital, count):
        found = [_organization(hospital), *resources(hospital, patient)]
        entries = [
            {"fullUrl": f"https://{hospital.name}.example.org/{item['resourceType']}/{item['id']}", "resource": item}
            for item in found
        ]
        bundle = {"resourceType": "Bundle", "id": f"bundle-{patient.id}", "type": "collection", "entry": entries}
        (target / f"{patient.id}.json").write_text(json.dumps(bundle, indent=1) + "\n", encoding="utf-8")
    return DataSource(connector="fhir", path="data/fhir", options={"cohort": cohort_options()})


def resources(hospital: Hospital, patient: Patient) -> Iterator[Resource]:
    """A patient's resources, the Patient first."""
    yield _patient(hospital, patient)
    yield _encounter(hospital, patient)
    for number, event in enumerate(patient.events):
        yield _MAKERS[event.kind](patient, event, f"{patient.id}-{number + 1}")
    if patient.number % IN_ERROR == IN_ERROR - 1:
        wild = Event("measurement", LABORATORY["potassium"], patient.admitted, 6.9, "mmol/L")
        yield _observation(patient, wild, f"{patient.id}-error") | {"status": "entered-in-error"}


def _line(resource: Resource) -> str:
    return json.dumps(resource, separators=(",", ":")) + "\n"


def _organization(hospital: Hospital) -> Resource:
    return {"resourceType": "Organization", "id": hospital.code, "name": f"Synthetic hospital {hospital.name}"}


def _patient(hospital: Hospital, patient: Patient) -> Resource:
    person = patient.person
    made: Resource = {
        "resourceType": "Patient",
        "id": patient.id,
        "identifier": [
            {"system": f"https://{hospital.name}.example.org/mrn", "value": patient.id},
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": person.national_id},
        ],
        "name": [{"use": "official", "family": person.family, "given": [person.given]}],
        "telecom": [{"system": "phone", "value": person.telephone}],
        "gender": "male" if person.sex == "M" else "female",
        "birthDate": person.birth.isoformat(),
        "address": [{"text": person.address}],
        "managingOrganization": {"reference": f"Organization/{hospital.code}"},
    }
    if patient.died is not None:
        made["deceasedDateTime"] = _moment(patient.died, 20)
    return made


def _encounter(hospital: Hospital, patient: Patient) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": f"{patient.id}-stay",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": _subject(patient),
        "period": {"start": _moment(patient.admitted, 8), "end": _moment(patient.discharged, 16)},
        "serviceProvider": {"reference": f"Organization/{hospital.code}"},
    }


def _observation(patient: Patient, event: Event, name: str) -> Resource:
    category = "laboratory" if event.concept.concept_class == "Lab Test" else "vital-signs"
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "category": [{"coding": [{"system": system, "code": category}]}],
        "code": _coded(event.concept),
        "subject": _subject(patient),
        "effectiveDateTime": _moment(event.day, 9),
        "valueQuantity": {"value": event.value, "unit": event.unit, "system": UCUM, "code": event.unit},
    }


def _condition(patient: Patient, event: Event, name: str) -> Resource:
    system = "http://terminology.hl7.org/CodeSystem/condition"
    return {
        "resourceType": "Condition",
        "id": name,
        "clinicalStatus": {"coding": [{"system": f"{system}-clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": f"{system}-ver-status", "code": "confirmed"}]},
        "code": _coded(event.concept),
        "subject": _subject(patient),
        "onsetDateTime": _moment(event.day, event.hour) if event.concept == HEART_FAILURE else event.day.isoformat(),
        "recordedDate": event.day.isoformat(),
    }


def _request(patient: Patient, event: Event, name: str) -> Resource:
    return {
        "resourceType": "MedicationRequest",
        "id": name,
        "status": "completed",
        "intent": "order",
        "medicationCodeableConcept": _coded(event.concept),
        "subject": _subject(patient),
        "authoredOn": event.day.isoformat(),
    }


_MAKERS: Final = {"condition": _condition, "measurement": _observation, "drug": _request}


def _coded(concept: Concept) -> Resource:
    return {
        "coding": [{"system": SYSTEMS[concept.system], "code": concept.code, "display": concept.name}],
        "text": concept.name,
    }


def _subject(patient: Patient) -> Resource:
    return {"reference": f"Patient/{patient.id}"}


def _moment(day: date, hour: int) -> str:
    return f"{day}T{hour:02d}:00:00+00:00"
