"""Events are read back with other libraries, and a cohort made by hand from them is the generator's table."""

import json
import zipfile
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import hl7
import pandas as pd
import pytest
from fhir.resources.R4B import get_fhir_model_class

from wardround.client.connectors.cohort_spec import parse_spec
from wardround.client.settings import read_settings
from wardround.simulations.synthetic.as_hl7v2 import messages
from wardround.simulations.synthetic.as_omop import TABLES
from wardround.simulations.synthetic.hospitals import hospitals
from wardround.simulations.synthetic.patients import patients

Made = Callable[..., Path]
Truth = Callable[[int, int], pd.DataFrame]
SITES = ("north", "south", "east", "west")
COUNT = 60
SEED = 11
TO_CONTRACT = {("2160-0", "mg/dL"): 1.0, ("14682-9", "umol/L"): 0.011312, ("718-7", "g/dL"): 1.0, ("718-7", "g/L"): 0.1}
NAMES = {"2160-0": "creatinine", "14682-9": "creatinine", "718-7": "hemoglobin", "2823-3": "potassium",
         "8480-6": "systolic", "8867-4": "heart_rate"}  # fmt: skip

Fact = tuple[str, str, date, float | None, str | None]
"""Patient, code, day, value, unit."""


def days(later: date, earlier: date) -> int:
    return (later - earlier).days


def cohort(people: dict[str, tuple[date, str]], facts: Iterable[Fact], furosemide: bool = True) -> pd.DataFrame:
    """One row a patient, by the rules that docs/synthetic.md gives; ``people``: birth and sex."""
    by_patient: dict[str, list[Fact]] = {name: [] for name in people}
    for fact in facts:
        by_patient[fact[0]].append(fact)
    rows = []
    for name, (born, sex) in people.items():
        found = by_patient[name]
        index = min(day for _, code, day, _, _ in found if code == "84114007")
        row: dict[str, Any] = {"patient": name, "sex": int(sex == "M")}
        row["age"] = index.year - born.year - ((index.month, index.day) < (born.month, born.day))
        for column in dict.fromkeys(NAMES.values()):
            inside = [
                (day, value * TO_CONTRACT.get((code, unit), 1.0))
                for _, code, day, value, unit in found
                if NAMES.get(code) == column and 0 <= days(index, day) <= 365
            ]
            row[column] = max(inside)[1] if inside else None
        for column, code, first, last in (
            ("diabetes", "44054006", -(10**6), 0),
            ("atrial_fibrillation", "49436004", -(10**6), 0),
            ("furosemide", "313988", -90, 0),
            ("kidney_injury", "14669001", 0, 30),
        ):
            row[column] = int(any(code == of and first <= days(day, index) <= last for _, of, day, _, _ in found))
        rows.append(row)
    table = pd.DataFrame(rows).set_index("patient").sort_index()
    return table if furosemide else table.drop(columns="furosemide")


def same(found: pd.DataFrame, true: pd.DataFrame) -> None:
    assert len(found) == COUNT
    pd.testing.assert_frame_equal(
        found.astype(float), true.sort_index()[found.columns].astype(float), check_dtype=False, rtol=0, atol=1e-3
    )


def ndjson(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{kind}.ndjson").read_text(encoding="utf-8").splitlines()]


def fhir_cohort(resources: list[dict[str, Any]]) -> pd.DataFrame:
    people, facts = {}, []
    for item in resources:
        kind = item["resourceType"]
        if kind == "Patient":
            people[item["id"]] = (date.fromisoformat(item["birthDate"]), item["gender"][0].upper())
            continue
        if item.get("status") == "entered-in-error" or kind not in ("Observation", "Condition", "MedicationRequest"):
            continue
        coded = item["medicationCodeableConcept" if kind == "MedicationRequest" else "code"]
        when = item.get("effectiveDateTime") or item.get("onsetDateTime") or item["authoredOn"]
        value = item.get("valueQuantity", {})
        facts.append(
            (item["subject"]["reference"].removeprefix("Patient/"), coded["coding"][0]["code"],
             date.fromisoformat(when[:10]), value.get("value"), value.get("code"))
        )  # fmt: skip
    return cohort(people, facts)


def test_a_fhir_export_gives_the_table(made: Made, truth: Truth) -> None:
    for number, site in enumerate(SITES):
        folder = made("fhir") / site / "data" / "fhir"
        kinds = ("Patient", "Observation", "Condition", "MedicationRequest")
        same(fhir_cohort([item for kind in kinds for item in ndjson(folder, kind)]), truth(number, COUNT))


def test_an_observation_that_was_entered_in_error_would_change_the_cohort(made: Made, truth: Truth) -> None:
    resources = [item for kind in ("Patient", "Observation", "Condition", "MedicationRequest")
                 for item in ndjson(made("fhir") / "north" / "data" / "fhir", kind)]  # fmt: skip
    wild = [item for item in resources if item.get("status") == "entered-in-error"]
    assert len(wild) == 1
    for item in wild:
        item["status"] = "final"
    with pytest.raises(AssertionError):
        same(fhir_cohort(resources), truth(0, COUNT))
    wild[0]["status"] = "entered-in-error"


def test_a_fhir_bundle_gives_the_table(made: Made, truth: Truth) -> None:
    files = sorted((made("fhir-bundles") / "south" / "data" / "fhir").iterdir())
    bundles = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    same(fhir_cohort([entry["resource"] for bundle in bundles for entry in bundle["entry"]]), truth(1, COUNT))
    get_fhir_model_class("Bundle").model_validate(bundles[0])


def test_every_resource_is_valid_fhir(made: Made) -> None:
    folder = made("fhir") / "south" / "data" / "fhir"
    for file in folder.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines()[:60]:
            get_fhir_model_class(file.stem).model_validate_json(line)
    with pytest.raises(ValueError):
        get_fhir_model_class("Observation").model_validate({"resourceType": "Observation", "status": "finale"})


def test_omop_gives_the_table_through_its_own_concepts(made: Made, truth: Truth) -> None:
    for number, site in enumerate(SITES):
        folder = made("omop") / site / "data" / "omop"
        table = {name: pd.read_csv(folder / f"{name}.csv", dtype={"concept_code": str}) for name in TABLES}
        concept = table["concept"].set_index("concept_id")
        assert concept.index.is_unique
        person = table["person"].set_index("person_id")
        people = {
            row.person_source_value: (date(row.year_of_birth, row.month_of_birth, row.day_of_birth),
                                      {8507: "M", 8532: "F"}[row.gender_concept_id])
            for row in person.itertuples()
        }  # fmt: skip
        facts: list[Fact] = []
        for name, kind, day in (
            ("condition_occurrence", "condition", "condition_start_date"),
            ("drug_exposure", "drug", "drug_exposure_start_date"),
            ("measurement", "measurement", "measurement_date"),
        ):
            for row in table[name].to_dict("records"):
                of = concept.loc[row[f"{kind}_concept_id"]]
                unit = concept.loc[row["unit_concept_id"]]["concept_code"] if kind == "measurement" else None
                who = person.loc[row["person_id"]]["person_source_value"]
                facts.append((who, of["concept_code"], date.fromisoformat(row[day]), row.get("value_as_number"), unit))
        same(cohort(people, facts), truth(number, COUNT))


def test_omop_descendants_reach_what_patients_have(made: Made) -> None:
    folder = made("omop") / "north" / "data" / "omop"
    ancestors = pd.read_csv(folder / "concept_ancestor.csv")
    conditions = pd.read_csv(folder / "condition_occurrence.csv")
    diabetes = set(ancestors[ancestors.ancestor_concept_id == 201820].descendant_concept_id)
    assert diabetes == {201820, 201826}
    assert (
        conditions.condition_concept_id.isin(diabetes).any() and not (conditions.condition_concept_id == 201820).any()
    )
    used = set(conditions.condition_concept_id) | set(pd.read_csv(folder / "drug_exposure.csv").drug_concept_id)
    used |= set(pd.read_csv(folder / "measurement.csv").measurement_concept_id)
    assert used <= set(ancestors.descendant_concept_id)
    assert not any(pd.read_csv(folder / f"{name}.csv").iloc[:, 0].duplicated().any() for name in
                   ("person", "condition_occurrence", "drug_exposure", "measurement", "visit_occurrence"))  # fmt: skip


def test_omop_deaths_are_those_of_the_table(made: Made, truth: Truth) -> None:
    folder = made("omop") / "north" / "data" / "omop"
    deaths = pd.read_csv(folder / "death.csv").person_id
    assert len(deaths) == truth(0, COUNT)["died"].sum() > 0


def test_omop_agrees_with_ohdsis_own_names(made: Made, wardround_data: Path) -> None:
    """Concept ids and codes equal those of a vocabulary that OHDSI published, wherever it has them."""
    with zipfile.ZipFile(wardround_data / "emr_formats" / "omop54_synthea27.zip") as archive:
        listed = archive.read("omop54/CONCEPT.csv").decode()
    theirs = {(line.split(",", 1)[0], line.rsplit(",", 4)[-4]) for line in listed.splitlines()[1:]}
    numbers = {number for number, _ in theirs}
    ours = pd.read_csv(made("omop") / "north" / "data" / "omop" / "concept.csv", dtype=str)
    known = ours[ours.concept_id.isin(numbers) & (ours.domain_id != "Gender")]
    assert len(known) >= 14
    assert {*zip(known.concept_id, known.concept_code, strict=True)} <= theirs


def hl7_cohort(folder: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    people, facts, kinds = {}, [], dict[str, int]()
    for path in sorted(folder.iterdir()):
        text = path.read_bytes().decode()
        file = hl7.parse_file(text)
        for batch in file:
            for message in batch:
                kind = str(message.segment("MSH")[9])
                kinds[kind] = kinds.get(kind, 0) + 1
                pid = message.segment("PID")
                who = str(pid[3][0][0])
                people[who] = (day_of(str(pid[7])), str(pid[8]))
                for segment in message:
                    if str(segment[0]) == "DG1":
                        assert str(segment[3][0][2]) == "SCT"
                        facts.append((who, str(segment[3][0][0]), day_of(str(segment[5])), None, None))
                    elif str(segment[0]) == "OBX":
                        assert str(segment[2]) == "NM" and str(segment[11]) == "F"
                        facts.append(
                            (who, str(segment[3][0][0]), day_of(str(segment[14])), float(str(segment[5])),
                             str(segment[6][0][0]))
                        )  # fmt: skip
    return cohort(people, facts, furosemide=False), kinds


def day_of(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def test_hl7_messages_give_the_table(made: Made, truth: Truth) -> None:
    for number, site in enumerate(SITES):
        found, kinds = hl7_cohort(made("hl7v2") / site / "data" / "hl7v2")
        same(found, truth(number, COUNT))
        assert kinds["ADT^A01^ADT_A01"] == kinds["ADT^A03^ADT_A03"] == COUNT


def test_hl7_fields_are_where_the_standard_has_them(made: Made, truth: Truth) -> None:
    path = next((made("hl7v2") / "north" / "data" / "hl7v2").iterdir())
    text = path.read_bytes().decode()
    assert "\n" not in text and text.startswith("FHS|^~\\&|") and f"BTS|{text.count(chr(13) + 'MSH')}" in text
    sent = [message for batch in hl7.parse_file(text) for message in batch]
    dead = [str(message.segment("PID")[3][0][0]) for message in sent if len(message.segment("PID")) > 30]
    assert len(set(dead)) == truth(0, COUNT)["died"].sum() > 0
    ends = next(message for message in sent if str(message.segment("MSH")[9]).startswith("ADT^A03"))
    stay = ends.segment("PV1")
    assert str(stay[19]).endswith("-STAY") and len(str(stay[44])) == len(str(stay[45])) == 14
    result = next(message for message in sent if str(message.segment("MSH")[9]).startswith("ORU"))
    assert str(result.segment("OBR")[25]) == "F" and str(result.segment("OBR")[7]).endswith("090000")


def test_diagnoses_of_one_day_are_in_one_message() -> None:
    site = hospitals(1, SEED)[0]
    for patient in patients(site, 20_000):
        days_of = [event.day for event in patient.events if event.kind == "condition"]
        if len(set(days_of)) < len(days_of):
            break
    else:
        pytest.fail("no patient has two diagnoses on one day")
    sent = [hl7.parse(message) for message in messages(site, patient)]
    diagnoses = [str(segment[3][0][0]) for message in sent for segment in message if str(segment[0]) == "DG1"]
    assert diagnoses == [event.concept.code for event in patient.events if event.kind == "condition"]


@pytest.mark.parametrize("format", ["omop", "fhir", "fhir-bundles", "hl7v2"])
def test_site_yaml_holds_a_cohort_specification_that_the_reader_accepts(made: Made, format: str) -> None:
    for site in SITES:
        (source,) = read_settings(made(format) / site).data
        spec = parse_spec(source.options["cohort"])
        assert (made(format) / site / source.path).is_dir()
        assert ("furosemide" in spec.columns) == (format != "hl7v2")
