r"""Patients as HL7 v2.5.1 messages: ADT for stays and diagnoses, ORU^R01 for measurements.

A file holds the messages of up to 1,000 patients in the batch protocol of chapter 2.10.3 (FHS, BHS, messages, BTS,
FTS); segments end with a carriage return. Diagnoses are in DG1 with SNOMED CT (SCT), measurements in OBX with LOINC
(LN) and UCUM. ADT and ORU carry no drugs, so the cohort of these files has no ``furosemide``.
"""

from collections.abc import Iterator
from datetime import date
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from wardround.client.settings import DataSource
from wardround.simulations.synthetic.clinical import cohort_options
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import Event, Patient, patients

IN_A_FILE: Final = 1000
_MSH: Final = "|^~\\&|EMR|{site}|RESEARCH|{site}|{at}"


def write_hl7v2(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/hl7v2/batch-<number>.hl7`` of a site's folder."""
    target = folder / "data" / "hl7v2"
    target.mkdir()
    everybody = patients(hospital, count)
    number = 0
    while some := list(islice(everybody, IN_A_FILE)):
        number += 1
        head = _MSH.format(site=hospital.code, at="20220101000000")
        with (target / f"batch-{number:05d}.hl7").open("w", encoding="utf-8", newline="") as file:
            file.write(f"FHS{head}\rBHS{head}\r")
            written = 0
            for patient in some:
                for message in messages(hospital, patient):
                    file.write(message)
                    written += 1
            file.write(f"BTS|{written}\rFTS|1\r")
    return DataSource(connector="hl7v2", path="data/hl7v2", options={"cohort": cohort_options(drugs=False)})


def messages(hospital: Hospital, patient: Patient) -> Iterator[str]:
    """A patient's messages in the order of their days."""
    number = 0

    def message(kind: str, day: date, hour: int, *segments: str) -> str:
        nonlocal number
        number += 1
        at = f"{day:%Y%m%d}{hour:02d}0000"
        head = f"MSH{_MSH.format(site=hospital.code, at=at)}||{kind}|{patient.id}-{number}|P|2.5.1"
        event = [f"EVN|{kind[4:7]}|{at}"] if kind.startswith("ADT") else []
        return "".join(f"{part}\r" for part in (head, *event, _pid(patient, day), *segments))

    stay = f"PV1|1|I|WARD^1^1^{hospital.code}||||||||||||||||{patient.id}-STAY"
    came, left = f"{patient.admitted:%Y%m%d}080000", f"{patient.discharged:%Y%m%d}160000"
    filled = stay + "|" * 25
    admission = ("ADT^A01^ADT_A01", patient.admitted, 12, filled + came)
    days = {day: list(found) for day, found in groupby(patient.events, lambda event: event.day)}
    for day in sorted({*days, patient.discharged} | ({patient.died} if patient.died else set())):
        found = days.get(day, [])
        diagnoses = [event for event in found if event.kind == "condition"]
        measured = [event for event in found if event.kind == "measurement"]
        segments = [_dg1(place, event) for place, event in enumerate(diagnoses, 1)]
        if day == patient.admitted:
            yield message(*admission, *segments)
        elif diagnoses:
            yield message("ADT^A08^ADT_A01", day, 9, "PV1|1|O", *segments)
        if measured:
            order = f"OBR|1||{patient.id}-{day:%Y%m%d}|LAB^Measurements^L|||{day:%Y%m%d}090000" + "|" * 18 + "F"
            yield message(
                "ORU^R01^ORU_R01", day, 13, order, *(_obx(place, event) for place, event in enumerate(measured, 1))
            )
        if day == patient.discharged:
            yield message("ADT^A03^ADT_A03", day, 16, f"{filled}{came}|{left}")
        if day == patient.died:
            yield message("ADT^A08^ADT_A01", day, 20, "PV1|1|N")


def _pid(patient: Patient, day: date) -> str:
    person = patient.person
    pid = (
        f"PID|1||{patient.id}^^^{patient.id[:4]}^MR||{person.family}^{person.given}||{person.birth:%Y%m%d}|{person.sex}"
        f"|||{person.address.replace(', ', '^^')}||{person.telephone}||||||{person.national_id}"
    )
    return pid + ("|" * 10 + f"{patient.died:%Y%m%d}200000|Y" if patient.died and day >= patient.died else "")


def _dg1(place: int, event: Event) -> str:
    concept = event.concept
    return f"DG1|{place}||{concept.code}^{concept.name}^SCT|{concept.name}|{event.day:%Y%m%d}{event.hour:02d}0000|F"


def _obx(place: int, event: Event) -> str:
    code = f"{event.concept.code}^{event.concept.name}^LN"
    unit = f"{event.unit}^{event.unit}^UCUM"
    return f"OBX|{place}|NM|{code}||{event.value}|{unit}|||||F|||{event.day:%Y%m%d}090000"
