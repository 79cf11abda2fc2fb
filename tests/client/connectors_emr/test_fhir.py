"""FHIR R4 exports: what is read equals what plain JSON says, and what is broken is counted and named."""

import gzip
import json
import os
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.connectors import read_batches
from wardround.client.connectors.codes import FHIR_SYSTEMS
from wardround.client.connectors.events import Event, LeftOut, Person
from wardround.client.connectors.fhir import read_fhir
from wardround.client.connectors.fhir_models import Reading, birthday, when
from wardround.client.connectors.timeline import Tally
from wardround.protocol.errors import UsageError

Rows = list[dict[str, Any]]
AsRows = Callable[[Iterator[pa.RecordBatch]], Rows]
HB = {"columns": {"x": {"from": "measurement", "codes": ["loinc:718-7"], "unit": "g/dL"}}}
COUNT = {"columns": {"x": {"from": "measurement", "codes": ["loinc:718-7"], "take": "count"}}}
EXECUTIONS = 20_000 if os.environ.get("WARDROUND_SOAK") else 150


def patient(name: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, **more}


def observation(name: str, who: str, number: float, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        "subject": {"reference": f"Patient/{who}"},
        "effectiveDateTime": "2024-01-01T10:00:00Z",
        "valueQuantity": {"value": number, "system": "http://unitsofmeasure.org", "code": "g/dL"},
        **more,
    }


def export(folder: Path, name: str, resources: Iterable[dict[str, Any] | str]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = (line if isinstance(line, str) else json.dumps(line) for line in resources)
    (folder / name).write_text("".join(line + "\n" for line in lines))
    return folder


@pytest.fixture
def synthea(wardround_data: Path) -> Path:
    return wardround_data / "emr_formats" / "fhir_r4_synthea.zip"


@pytest.fixture
def plain(synthea: Path) -> list[dict[str, Any]]:
    """Every resource by plain JSON."""
    with zipfile.ZipFile(synthea) as archive:
        bundles = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    return [entry["resource"] for bundle in bundles for entry in bundle["entry"]]


def subject(resource: dict[str, Any]) -> str:
    return str(resource["subject"]["reference"]).removeprefix("urn:uuid:")


KINDS = {
    "measurement": "Observation",
    "condition": "Condition",
    "encounter": "Encounter",
    "drug": "MedicationRequest",
    "procedure": "Procedure",
}


def test_all_37_synthea_patients_have_the_counts_that_plain_json_has(
    synthea: Path, plain: list[dict[str, Any]], as_rows: AsRows
) -> None:
    columns: dict[str, Any] = {kind: {"from": kind, "take": "count"} for kind in KINDS if kind != "measurement"} | {
        "height": {"from": "measurement", "codes": ["loinc:8302-2"], "take": "count"}
    }
    tally = Tally()
    rows = as_rows(read_fhir(synthea, cohort={"columns": columns}, tally=tally))
    assert len(rows) == 37
    assert not tally.counts
    for kind in set(KINDS) - {"measurement"}:
        counted = Counter(subject(r) for r in plain if r["resourceType"] == KINDS[kind])
        assert {row["patient"]: row[kind] for row in rows if row[kind]} == counted
    heights = Counter(
        subject(r) for r in plain if r["resourceType"] == "Observation" and r["code"]["coding"][0]["code"] == "8302-2"
    )
    assert {row["patient"]: row["height"] for row in rows if row["height"]} == heights
    assert sum(row["condition"] for row in rows) == 121
    assert sum(row["encounter"] for row in rows) == 279


def test_every_measurement_of_synthea_has_the_mean_the_last_and_the_unit_of_plain_json(
    synthea: Path, plain: list[dict[str, Any]], as_rows: AsRows
) -> None:
    values: dict[tuple[str, str], list[tuple[datetime, float, str]]] = {}
    for resource in plain:
        if resource["resourceType"] != "Observation":
            continue
        time = datetime.fromisoformat(resource["effectiveDateTime"])
        for part in (resource, *resource.get("component", [])):
            if "valueQuantity" in part:
                quantity = part["valueQuantity"]
                at = (subject(resource), part["code"]["coding"][0]["code"])
                values.setdefault(at, []).append((time, quantity["value"], quantity["code"]))
    units = {code: found[0][2] for (_, code), found in values.items()}
    readable = {code: unit for code, unit in units.items() if not unit.startswith("{")}
    assert len(readable) > 20
    columns = {
        f"{take} {code}": {"from": "measurement", "codes": [f"loinc:{code}"], "take": take, "unit": unit}
        for code, unit in readable.items()
        for take in ("mean", "last")
    }
    rows = {row["patient"]: row for row in as_rows(read_fhir(synthea, cohort={"columns": columns}))}
    compared = 0
    for (who, code), found in values.items():
        if code in readable:
            assert rows[who][f"mean {code}"] == pytest.approx(fmean(number for _, number, _ in found), rel=1e-12)
            last = max(time for time, _, _ in found)
            assert rows[who][f"last {code}"] == max(number for time, number, _ in found if time == last)
            compared += len(found)
    assert compared > 1500


def test_demographics_of_synthea_are_those_of_plain_json(
    synthea: Path, plain: list[dict[str, Any]], as_rows: AsRows
) -> None:
    columns = {
        "sex": {"from": "sex"},
        "place": {"from": "site_of_care"},
        "died": {"from": "death", "take": "exists"},
        "smoker": {"from": "measurement", "codes": ["loinc:72166-2"]},
    }
    rows = {row["patient"]: row for row in as_rows(read_fhir(synthea, cohort={"columns": columns}))}
    for person in (r for r in plain if r["resourceType"] == "Patient"):
        row = rows[person["id"]]
        assert row["sex"] == person["gender"]
        assert row["died"] == ("deceasedDateTime" in person)
        visits = [r for r in plain if r["resourceType"] == "Encounter" and subject(r) == person["id"]]
        newest = max(visits, key=lambda visit: datetime.fromisoformat(visit["period"]["start"]))
        assert row["place"] == newest["serviceProvider"]["reference"].removeprefix("urn:uuid:")
        smoking = [
            (datetime.fromisoformat(r["effectiveDateTime"]), r["valueCodeableConcept"]["coding"][0]["code"])
            for r in plain
            if r["resourceType"] == "Observation" and subject(r) == person["id"]
            and r["code"]["coding"][0]["code"] == "72166-2"
        ]  # fmt: skip
        assert row["smoker"] == (f"snomed:{max(smoking)[1]}" if smoking else None)
    assert len(rows) == 37


def test_a_zip_a_folder_of_bundles_and_a_gzipped_bulk_export_give_the_same_rows(
    synthea: Path, plain: list[dict[str, Any]], as_rows: AsRows, tmp_path: Path
) -> None:
    cohort = {
        "index": {"kind": "encounter", "take": "last"},
        "columns": {
            "bmi": {"from": "measurement", "codes": ["loinc:39156-5"], "take": "mean", "unit": "kg/m2"},
            "pressure": {"from": "measurement", "codes": ["loinc:8480-6"], "unit": "kPa"},
            "drug": {"from": "drug"},
            "age": {"from": "age"},
        },
    }
    with zipfile.ZipFile(synthea) as archive:
        archive.extractall(tmp_path / "folder")
    bulk = tmp_path / "bulk"
    bulk.mkdir()
    for kind in {r["resourceType"] for r in plain}:
        text = "".join(json.dumps(r) + "\n" for r in plain if r["resourceType"] == kind)
        with gzip.open(bulk / f"{kind}.ndjson.gz", "wt") as file:
            file.write(text)
    rows = as_rows(read_fhir(synthea, cohort=cohort))
    assert rows == as_rows(read_fhir(tmp_path / "folder", cohort=cohort))
    assert rows == as_rows(read_fhir(bulk, cohort=cohort))
    assert len(rows) == 37


def test_what_our_models_read_of_synthea_is_what_the_full_models_of_fhir_resources_say(
    plain: list[dict[str, Any]],
) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    now = Reading(FHIR_SYSTEMS, use_bounds=False)
    checked = Counter[str]()
    for resource in plain:
        kind = resource["resourceType"]
        if kind not in (*KINDS.values(), "Patient"):
            continue
        checked[kind] += 1
        if checked[kind] > 200:
            continue
        whole: Any = get_fhir_model_class(kind).model_validate(resource)
        items = list(now.items(kind, resource))
        if kind == "Patient":
            person = items[0]
            assert isinstance(person, Person)
            assert (person.patient, person.birth, person.sex) == (whole.id, whole.birthDate, whole.gender)
            continue
        event = items[0]
        assert isinstance(event, Event)
        assert whole.subject.reference == f"urn:uuid:{event.patient}"
        if kind == "Observation":
            assert event.time == whole.effectiveDateTime
            assert event.codes == tuple(f"loinc:{coding.code}" for coding in whole.code.coding)
            assert event.number == (float(whole.valueQuantity.value) if whole.valueQuantity else None)
            assert len(items) == 1 + len(whole.component or [])
        if kind == "Condition":
            assert event.time == whole.onsetDateTime
        if kind == "Encounter":
            assert event.time == whole.period.start
    assert checked == {
        "Patient": 37, "Observation": 1832, "Condition": 121, "Encounter": 279, "MedicationRequest": 53, "Procedure": 89
    }  # fmt: skip


def test_a_heart_table_that_is_written_as_a_bulk_export_is_read_back(
    heart: tuple[Rows, dict[str, Any]], as_rows: AsRows, tmp_path: Path
) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    table, cohort = heart
    when = "2024-03-01T09:00:00+00:00"
    resources: list[dict[str, Any]] = []
    for row in table:
        who = {"reference": f"Patient/{row['patient']}"}
        resources.append(patient(row["patient"], birthDate=f"{2024 - row['age']}-01-15"))
        if row["sex"]:
            resources[-1]["gender"] = row["sex"]
        name = f"{row['patient']}-visit"
        kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
        visit = {"resourceType": "Encounter", "id": name, "status": "finished", "class": kind, "subject": who}
        resources.append({**visit, "period": {"start": when}})
        # Cholesterol goes out in mmol/L's sister unit g/L, blood pressure in kPa: units must come back.
        for column, code, unit, factor in (("trestbps", "8480-6", "mm[Hg]", 1.0), ("chol", "2093-3", "g/L", 0.01)):
            if row[column] is not None:
                value = {"value": row[column] * factor, "system": "http://unitsofmeasure.org", "code": unit}
                coding = {"coding": [{"system": "http://loinc.org", "code": code}]}
                resources.append(
                    observation(f"{row['patient']}-{column}", row["patient"], 0, code=coding, valueQuantity=value)
                    | {"effectiveDateTime": when}
                )
        if row["fbs"]:
            sugar = observation(f"{row['patient']}-fbs", row["patient"], 0, effectiveDateTime=when)
            del sugar["valueQuantity"]
            sugar["code"] = {"coding": [{"code": "FBS"}]}
            answer = {"system": "http://snomed.info/sct", "code": row["fbs"].removeprefix("snomed:")}
            sugar["valueCodeableConcept"] = {"coding": [answer]}
            resources.append(sugar)
        if row["sick"]:
            code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I25.1"}]}
            finding = {"resourceType": "Condition", "id": f"{row['patient']}-c", "code": code, "subject": who}
            resources.append({**finding, "onsetDateTime": "2024-03-20"})
    for kind in ("Patient", "Encounter", "Observation", "Condition"):
        some = [resource for resource in resources if resource["resourceType"] == kind]
        for resource in some:
            get_fhir_model_class(kind).model_validate(resource)
        export(tmp_path / "out", f"{kind}.ndjson", some)
    rows = as_rows(read_fhir(tmp_path / "out", cohort=cohort))
    assert [row.pop("chol") for row in rows] == [
        None if row["chol"] is None else pytest.approx(row["chol"], rel=1e-12) for row in table
    ]
    assert rows == [{name: cell for name, cell in row.items() if name != "chol"} for row in table]


def test_the_fixture_reads_as_its_readme_says(fixtures: Path, as_rows: AsRows) -> None:
    text = (fixtures / "fhir" / "README.md").read_text()
    site = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    (source,) = site["data"]
    tally = Tally()
    batches = read_batches(source["connector"], fixtures / "fhir" / source["path"], source["options"])
    assert as_rows(batches) == [
        {"patient": "a1", "age": 73, "hemoglobin": 12.5},
        {"patient": "a2", "age": 62, "hemoglobin": None},
    ]
    cohort = {"columns": HB["columns"] | {"bp": {"from": "measurement", "codes": ["loinc:8462-4"], "unit": "mm[Hg]"}}}
    rows = as_rows(read_fhir(fixtures / "fhir" / "export", cohort=cohort, tally=tally))
    # Of the result that comes twice the one that was updated counts, though both are in the file.
    assert [(row["x"], row["bp"]) for row in rows] == [(12.5, 91.0), (None, None), (14.4, None)]
    assert tally.counts == {
        "a line that is no JSON object in UTF-8": 1,
        "Observation: not final": 1,
        "column 'x': a unit that cannot be converted": 1,
        "an event of a patient who is not in the source": 1,
    }
    assert tally.places[0] == "Observation.1.ndjson line 5: Observation: not final"
    assert tally.places[1] == "Observation.2.ndjson line 1: a line that is no JSON object in UTF-8"


def test_a_transaction_whose_resources_have_no_ids_is_read_by_its_addresses(fixtures: Path, as_rows: AsRows) -> None:
    cohort = {"columns": {"drug": {"from": "drug"}, "sex": {"from": "sex"}}}
    assert as_rows(read_fhir(fixtures / "fhir" / "bundles", cohort=cohort)) == [
        {"patient": "11111111-2222-4333-8444-555555555555", "drug": "rxnorm:197361", "sex": "male"}
    ]


def test_drugs_are_found_by_reference_or_inside_the_request(as_rows: AsRows, tmp_path: Path) -> None:
    def request(name: str, **more: Any) -> dict[str, Any]:
        who = {"reference": f"Patient/{name}"}
        base = {"resourceType": "MedicationRequest", "id": name, "status": "active", "intent": "order", "subject": who}
        return {**base, "authoredOn": "2024-01-01", **more}

    code = {"coding": [{"system": "http://www.whocc.no/atc", "code": "C10AA05"}]}
    inside = [{"resourceType": "Medication", "id": "m", "code": code}]
    export(tmp_path / "x", "Patient.ndjson", [patient(name) for name in "abcde"])
    export(tmp_path / "x", "Medication.ndjson", [{"resourceType": "Medication", "id": "m9", "code": code}])
    requests = [
        request("a", medicationReference={"reference": "Medication/m9"}),
        request("b", medicationReference={"reference": "#m"}, contained=inside),
        request("c", medicationReference={"reference": "Medication/gone"}),
        request("d", medicationCodeableConcept=code, intent="proposal"),
        request("e", medicationCodeableConcept=code, status="entered-in-error"),
    ]
    # The name says nothing, and in the order of names the requests stand before the drugs.
    export(tmp_path / "x", "AllRequests.ndjson", requests)
    tally = Tally()
    rows = as_rows(read_fhir(tmp_path / "x", cohort={"columns": {"x": {"from": "drug"}}}, tally=tally))
    assert [row["x"] for row in rows] == ["atc:C10AA05", "atc:C10AA05", None, None, None]
    assert tally.counts == {
        "MedicationRequest: a medication that is not in the source": 1,
        "MedicationRequest: planned only": 1,
    }


def test_a_bound_is_no_number_unless_the_site_says_so(as_rows: AsRows, tmp_path: Path) -> None:
    low = observation("o1", "a", 0, valueQuantity={"value": 5, "comparator": "<", "code": "g/dL", "unit": "g/dL"})
    export(tmp_path / "x", "all.ndjson", [patient("a"), low])
    tally = Tally()
    assert as_rows(read_fhir(tmp_path / "x", cohort=HB, tally=tally))[0]["x"] is None
    assert tally.counts == {"column 'x': a bound, not a number": 1}
    assert as_rows(read_fhir(tmp_path / "x", cohort=HB, bounds="limit"))[0]["x"] == 5.0
    assert as_rows(read_fhir(tmp_path / "x", cohort=COUNT))[0]["x"] == 1


def test_a_result_that_was_withdrawn_later_is_gone(as_rows: AsRows, tmp_path: Path) -> None:
    wrong = observation("o1", "a", 50.0, status="entered-in-error", meta={"versionId": "2"})
    right = observation("o1", "a", 50.0, meta={"versionId": "1"})
    for order in ([wrong, right], [right, wrong]):
        export(tmp_path / "x", "all.ndjson", [patient("a"), *order, observation("o2", "a", 12.0)])
        assert as_rows(read_fhir(tmp_path / "x", cohort=COUNT))[0]["x"] == 1
        assert as_rows(read_fhir(tmp_path / "x", cohort=HB))[0]["x"] == 12.0


def test_codes_of_a_site_get_a_name_of_their_own(as_rows: AsRows, tmp_path: Path) -> None:
    coding = {"coding": [{"system": "https://lab.example.org/codes", "code": "718-7"}]}
    export(tmp_path / "x", "all.ndjson", [patient("a"), observation("o1", "a", 12.0, code=coding)])
    cohort = {"columns": {"x": {"from": "measurement", "codes": ["lab:718-7", "local:718-7"], "take": "count"}}}
    assert as_rows(read_fhir(tmp_path / "x", cohort=cohort))[0]["x"] == 0
    own = {"https://lab.example.org/codes": "lab"}
    assert as_rows(read_fhir(tmp_path / "x", cohort=cohort, systems=own))[0]["x"] == 1


def test_dates_in_three_styles_are_read_or_counted_and_never_guessed(as_rows: AsRows, tmp_path: Path) -> None:
    styles = ["2024-03-04", "04.03.2024", "03/04/2024", "2024-03", "2024-13-01T00:00:00Z", "20240304"]
    some = [observation(f"o{n}", "a", 10.0 + n, effectiveDateTime=style) for n, style in enumerate(styles)]
    export(tmp_path / "x", "all.ndjson", [patient("a"), *some])
    tally = Tally()
    assert as_rows(read_fhir(tmp_path / "x", cohort=COUNT, tally=tally))[0]["x"] == 1
    assert tally.counts == {
        "measurement: a time that is not understood": 4,
        "measurement: a time that is not to the day": 1,
    }


def test_a_date_is_midnight_in_the_time_zone_of_the_site(as_rows: AsRows, tmp_path: Path) -> None:
    some = [
        observation("o1", "a", 1.0, effectiveDateTime="2024-03-04"),
        observation("o2", "a", 2.0, effectiveDateTime="2024-03-03T23:30:00Z"),
    ]
    export(tmp_path / "x", "all.ndjson", [patient("a"), *some])
    assert as_rows(read_fhir(tmp_path / "x", cohort=HB))[0]["x"] == 1.0
    assert as_rows(read_fhir(tmp_path / "x", cohort=HB, time_zone="Europe/Berlin"))[0]["x"] == 2.0


def test_wrong_encodings_are_counted_or_refused_and_a_byte_order_mark_is_not(as_rows: AsRows, tmp_path: Path) -> None:
    folder = export(tmp_path / "x", "Observation.ndjson", [observation("o1", "a", 12.0)])
    (folder / "Patient.ndjson").write_bytes(b"\xef\xbb\xbf" + json.dumps(patient("a")).encode() + b"\r\n")
    name = {"text": "Bj\u00f6rn"}
    latin = json.dumps(observation("o2", "a", 13.0, method=name), ensure_ascii=False).encode("latin-1")
    with (folder / "Observation.ndjson").open("ab") as file:
        file.write(latin + b"\n")
    tally = Tally()
    assert as_rows(read_fhir(folder, cohort=HB, tally=tally)) == [{"patient": "a", "x": 12.0}]
    assert tally.places == ["Observation.ndjson line 2: a line that is no JSON object in UTF-8"]
    (folder / "Condition.ndjson").write_bytes((json.dumps({"resourceType": "Condition"}) + "\n").encode("utf-16"))
    with pytest.raises(UsageError, match=r"'Condition.ndjson' is no NDJSON"):
        as_rows(read_fhir(folder, cohort=HB))


def test_a_file_of_one_line_of_64_mb_does_not_come_into_memory(as_rows: AsRows, tmp_path: Path) -> None:
    folder = export(tmp_path / "x", "Patient.ndjson", [patient("a")])
    with (folder / "Observation.ndjson").open("wb") as file:
        file.write(b'{"resourceType": "Observation", "note": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"'Observation.ndjson' is no NDJSON"):
        as_rows(read_fhir(folder, cohort=HB))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20
    with (folder / "Observation.ndjson").open("ab") as file:
        file.write(b"\n" + json.dumps(observation("o1", "a", 12.0)).encode())
    tally = Tally()
    assert as_rows(read_fhir(folder, cohort=HB, tally=tally))[0]["x"] == 12.0
    assert tally.places == ["Observation.ndjson line 1: a line of more than 16 MB"]


@pytest.mark.parametrize("what", ["nothing", "empty", "other files", "no resource", "zip", "gzip"])
def test_what_is_no_export_is_refused_in_two_lines_that_name_it(what: str, as_rows: AsRows, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if what != "nothing":
        path.mkdir()
    if what == "other files":
        (path / "notes.txt").write_text("hello")
    if what == "no resource":
        (path / "a.json").write_text("[1, 2]")
        (path / "b.ndjson").write_text("\n\n")
    if what == "zip":
        path = tmp_path / "x.zip"
        path.write_bytes(b"PK\x03\x04 not a zip")
    if what == "gzip":
        whole = gzip.compress(json.dumps(patient("a")).encode() * 100)
        (path / "Patient.ndjson.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError) as caught:
        as_rows(read_fhir(path, cohort=HB))
    assert "'Patient.ndjson.gz'" in caught.value.message if what == "gzip" else "'x" in caught.value.message
    assert caught.value.hint
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "options",
    [
        {"cohort": {}},
        {"cohort": "age"},
        {"cohort": HB, "bounds": "maybe"},
        {"cohort": HB, "systems": {"http://lab.example.org": "Not a name"}},
        {"cohort": HB, "systems": ["http://lab.example.org"]},
        {"cohort": HB, "time_zone": "Berlin"},
        {"cohort": {"columns": {"x": {"from": "measurement"}}}},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], as_rows: AsRows, fixtures: Path) -> None:
    with pytest.raises(UsageError):
        as_rows(read_fhir(fixtures / "fhir" / "export", **options))


def test_an_unknown_option_is_refused(fixtures: Path) -> None:
    for name in ("cohrt", "tally"):
        with pytest.raises(UsageError, match="no option"):
            list(read_batches("fhir", fixtures / "fhir" / "export", {"cohort": HB, name: 1}))


def test_a_resource_that_is_not_as_fhir_says_is_counted_and_its_values_are_not_shown(
    as_rows: AsRows, tmp_path: Path
) -> None:
    bad = [
        observation("o1", "a", 271828, valueQuantity={"value": "271828", "code": "g/dL"}),
        observation("o2", "a", 1, code="271828"),
        observation("o3", "a", 1, subject=None),
        observation("o4", "a", 1, subject={"reference": "Patient/../271828 x"}),
        {"resourceType": "Patient", "birthDate": "1960-01-01"},
        {"resourceType": ["Observation"]},
    ]
    export(tmp_path / "x", "all.ndjson", [patient("a"), *bad])
    tally = Tally()
    assert as_rows(read_fhir(tmp_path / "x", cohort=COUNT, tally=tally)) == [{"patient": "a", "x": 0}]
    assert tally.counts == {
        "Observation: not what FHIR R4 says": 2,
        "Observation: no reference to a patient": 2,
        "Patient: a patient without an id": 1,
        "a resource that does not say its type": 1,
    }
    assert "271828" not in str(tally.counts) + str(tally.places)


def test_memory_does_not_grow_with_the_events(as_rows: AsRows, tmp_path: Path) -> None:
    def peak(each: int) -> int:
        folder = tmp_path / f"n{each}"
        export(folder, "Patient.ndjson", [patient(f"p{n}") for n in range(100)])
        some = (observation(f"o{n}", f"p{n % 100}", 10 + n % 5) for n in range(100 * each))
        export(folder, "Observation.ndjson", some)
        tracemalloc.start()
        as_rows(read_fhir(folder, cohort=HB))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    # 9,000 results more: 8 bytes of each for its key, twice while they are sorted, and nothing else.
    assert peak(100) - peak(10) < 9_000 * 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["final", "Patient/a", "urn:uuid:x", "2024-01-01", "http://loinc.org", "718-7", "#m", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "id", "status", "code", "coding", "system", "subject", "reference", "value", "valueQuantity", "component",
            "period", "start", "meta", "lastUpdated", "versionId", "effectiveDateTime", "birthDate", "entry",
            "resource", "fullUrl", "contained", "intent", "medicationReference", "class", "valueInteger",
            "deceasedDateTime",
        ]),
        inner,
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip
TYPES = ["Patient", "Observation", "Condition", "Encounter", "MedicationRequest", "Medication", "Procedure", "Bundle"]


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.sampled_from(TYPES), st.dictionaries(st.text(max_size=4), JSON, max_size=3), JSON, st.data())
def test_no_json_breaks_the_reader(kind: str, more: dict[str, Any], odd: Any, data: st.DataObject) -> None:
    good = {**observation("o1", "a", 1.0), "intent": "order", "resourceType": kind, "entry": [{"resource": odd}]}
    key = data.draw(st.sampled_from(sorted(good)))
    resource = {**good, **more, key: odd}
    now = Reading(FHIR_SYSTEMS, use_bounds=False)
    try:
        if resource["resourceType"] == kind and kind != "Bundle":
            list(now.items(kind, json.loads(json.dumps(resource))))
    except LeftOut as reason:
        assert len(str(reason)) < 60


@settings(max_examples=EXECUTIONS // 3, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40) | JSON.map(lambda found: json.dumps(found).encode()), max_size=6), odd=JSON
)
def test_no_bytes_break_the_reader(lines: list[bytes], odd: Any) -> None:
    bundle = {"resourceType": "Bundle", "entry": odd}
    more = {"resourceType": "Bundle", "entry": [{"fullUrl": odd, "resource": {"resourceType": "Patient", "id": odd}}]}
    fixed = [json.dumps(found).encode() for found in (patient("a"), observation("o", "a", 1.0), bundle, more)]
    cohort = {"columns": HB["columns"] | {"age": {"from": "age"}, "place": {"from": "site_of_care"}}}
    with TemporaryDirectory() as folder:
        (Path(folder) / "all.ndjson").write_bytes(b"\n".join([*fixed, *lines]))
        found = pa.Table.from_batches(read_fhir(Path(folder), cohort=cohort)).to_pylist()
    assert found[[row["patient"] for row in found].index("a")]["x"] == 1.0


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.+Z-]{0,20})?", fullmatch=True))
def test_no_text_breaks_the_reading_of_dates(text: str) -> None:
    time, problem = when(text)
    assert (time is None) == bool(problem)
    birthday(text)
