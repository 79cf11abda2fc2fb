"""Each fault that is planted into good data is found by its own finding, and good data have none."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.readiness import CHECKS, Finding, Severity, check, gather
from wardround.client.readiness.label import auroc_with_bound
from wardround.client.settings import DataSource, LabelTable, SiteSettings
from wardround.client.store.members import Part
from wardround.protocol.contract import DataContract
from wardround.simulations.synthetic.cohort import CONTRACT_FILE, make_cohort

Rows = list[dict[str, str]]
PATIENTS = 240


class Alternate:
    """Every third patient tests; those in ``out`` are not admitted."""

    def __init__(self, out: Sequence[str] = ()) -> None:
        self.out = set(out)

    def parts(self, ids: Sequence[str]) -> list[Part | None]:
        sides = [Part.TEST if number % 3 == 0 else Part.TRAIN for number in range(len(ids))]
        return [None if id_ in self.out else side for id_, side in zip(ids, sides, strict=True)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "csv"
    make_cohort(place, format="csv", sites=1, patients=PATIENTS)
    return place


@pytest.fixture
def contract(made: Path) -> DataContract:
    return DataContract.model_validate(json.loads((made / CONTRACT_FILE).read_text()))


@pytest.fixture
def rows(made: Path) -> Rows:
    with (made / "north" / "data" / "patients.csv").open() as lines:
        return list(csv.DictReader(lines))


Looked = Callable[..., list[Finding]]


@pytest.fixture
def looked(contract: DataContract, tmp_path: Path) -> Looked:
    """The findings for rows of a table that is written for it."""

    def look(rows: Rows, division: Any = None, declared: int | None = None, **changes: Any) -> list[Finding]:
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        settings = SiteSettings(data=(DataSource(connector="csv", path="table.csv"),))
        used = contract.model_copy(update=changes)
        return check(gather(used, settings, tmp_path, division or Alternate(), declared))

    return look


def codes(findings: list[Finding]) -> dict[str, str]:
    """What is more than fine: column by code."""
    return {finding.code: finding.column for finding in findings if finding.severity is not Severity.FINE}


def test_good_data_are_ready_and_nothing_is_to_be_looked_at(looked: Looked, rows: Rows) -> None:
    found = looked(rows)
    assert codes(found) == {}
    assert {finding.code for finding in found} == {"prevalence", "patients", "split"}


def test_every_family_of_checks_says_something_here(looked: Looked, rows: Rows) -> None:
    assert set(CHECKS) == {
        "columns", "units", "label", "leaks", "patients", "duplicates", "split", "pictures",
        "machines", "header leaks", "left out",
    }  # fmt: skip


def each(rows: Rows, column: str, change: Callable[[float], float]) -> Rows:
    return [row | ({column: str(change(float(row[column])))} if row[column] else {}) for row in rows]


@pytest.mark.parametrize(
    ("column", "change", "unit"),
    [
        ("systolic", lambda v: v * 0.133322, "kPa"),
        ("hemoglobin", lambda v: v * 10, "g/L"),
        ("age", lambda v: v * 12, "mo"),
        ("creatinine", lambda v: v * 88.4, "umol/L"),
        ("heart_rate", lambda v: v / 60, "/s"),
    ],
)
def test_a_column_in_another_unit_is_found_and_the_unit_named(
    column: str, change: Callable[[float], float], unit: str, looked: Looked, rows: Rows
) -> None:
    found = [one for one in looked(each(rows, column, change)) if one.code == "unit"]
    assert len(found) == 1 and found[0].column == column
    assert f"looks like {unit}," in found[0].sentence and found[0].severity is Severity.STOPS


def test_a_column_that_fits_no_unit_is_only_said_to_lie_far(looked: Looked, rows: Rows) -> None:
    assert codes(looked(each(rows, "heart_rate", lambda v: 190 + v / 1000))) == {"far": "heart_rate"}
    assert codes(looked(each(rows, "systolic", lambda v: v + 3))) == {}


def change(rows: Rows, places: Sequence[int], **cells: str) -> Rows:
    return [row | cells if number in places else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        ({"systolic": "Quillfeather"}, "no number", "systolic"),
        ({"systolic": "9999"}, "outside", "systolic"),
        ({"sex": "Quillfeather"}, "unknown code", "sex"),
        ({"kidney_injury": "maybe"}, "unknown code", "kidney_injury"),
    ],
)
def test_broken_cells_are_counted_and_never_shown(
    cells: dict[str, str], code: str, column: str, looked: Looked, rows: Rows
) -> None:
    found = looked(change(rows, range(3, 8), **cells))
    (broken,) = (one for one in found if one.severity is Severity.STOPS)
    assert (broken.code, broken.column, broken.count) == (code, column, 5)
    said = repr(found)
    assert "Quillfeather" not in said and "9999" not in said


def test_missing_columns_and_missing_cells(looked: Looked, rows: Rows) -> None:
    assert codes(looked([{k: v for k, v in row.items() if k != "potassium"} for row in rows])) == {
        "absent": "potassium"
    }
    assert codes(looked(change(rows, range(PATIENTS), potassium=""))) == {"all missing": "potassium"}
    assert codes(looked(change(rows, range(100), potassium="?"))) == {"missing": "potassium"}
    assert codes(looked(change(rows, range(PATIENTS), potassium="4.1"))) == {"constant": "potassium"}


def test_labels_of_one_class_rare_ones_and_none(looked: Looked, rows: Rows) -> None:
    assert codes(looked(change(rows, range(PATIENTS), kidney_injury="0"))) == {"one class": "kidney_injury"}
    rare = change(change(rows, range(PATIENTS), kidney_injury="0"), range(5), kidney_injury="1")
    assert codes(looked(rare)) == {"rare class": "kidney_injury"}
    assert "no label" in codes(looked(change(rows, range(PATIENTS), kidney_injury="")))


def test_a_column_that_tells_the_label_and_one_whose_absence_does(looked: Looked, rows: Rows) -> None:
    told = [row | {"potassium": "5.9" if row["kidney_injury"] == "1" else "4.0"} for row in rows]
    assert codes(looked(told)) == {"leak": "potassium"}
    absent = [row | ({"potassium": ""} if row["kidney_injury"] == "1" else {}) for row in rows]
    found = [one for one in looked(absent) if one.code == "leak"]
    assert len(found) == 1 and found[0].sentence.startswith("Whether column 'potassium' is missing")


def test_few_records_are_never_sure_of_a_leak() -> None:
    values, positive = np.arange(24.0), np.arange(24) >= 12
    auroc, low = auroc_with_bound(values, positive)
    assert auroc == 1.0 and low < 0.95
    assert auroc_with_bound(np.arange(400.0), np.arange(400) >= 200)[1] > 0.95
    assert auroc_with_bound(values, np.arange(24) >= 20) == (0.5, 0.0)


def test_the_auroc_is_that_of_every_pair() -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    values, positive = generator.integers(0, 9, 80).astype(float), generator.random(80) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    expected = float(np.mean(pairs))
    assert auroc_with_bound(values, positive)[0] == pytest.approx(max(expected, 1 - expected))


def test_patients_twice_under_two_ids_and_in_two_spellings(looked: Looked, rows: Rows) -> None:
    assert codes(looked([*rows, *rows[:4]])) == {"repeated": ""}
    twin = [row | {"patient": f"X{number}"} for number, row in enumerate(rows[:4])]
    assert codes(looked([*rows, *twin])) == {"two patients": ""}
    spelled = [row | {"patient": row["patient"].lower(), "age": "50"} for row in rows[:2]]
    assert codes(looked([*rows, *spelled])) == {"spelling": ""}
    found = looked(change(rows, [1, 2], patient=""))
    assert [one.count for one in found if one.code == "no patient"] == [2]


def test_few_patients_and_a_plan_that_declares_many(looked: Looked, rows: Rows) -> None:
    assert "few patients" in codes(looked(rows[:24]))
    assert codes(looked(rows, declared=250)) == {} and codes(looked(rows, declared=1000)) == {"declared": ""}


def test_who_is_not_admitted_is_counted(looked: Looked, rows: Rows) -> None:
    ids = [row["patient"] for row in rows]
    some, everybody = looked(rows, Alternate(ids[:7])), looked(rows, Alternate(ids))
    assert [(one.code, one.count, one.severity) for one in some if one.code == "not admitted"] == [
        ("not admitted", 7, Severity.LOOK)
    ]
    assert next(one for one in everybody if one.code == "not admitted").severity is Severity.STOPS


def test_a_source_that_cannot_be_read_is_a_finding(contract: DataContract, tmp_path: Path) -> None:
    settings = SiteSettings(data=(DataSource(connector="csv", path="gone.csv"),))
    (found,) = (
        one for one in check(gather(contract, settings, tmp_path, Alternate())) if one.severity is Severity.STOPS
    )
    assert found.code == "unread" and "no file 'gone.csv'" in found.sentence


def test_what_a_reader_of_events_leaves_out_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "fhir"
    make_cohort(place, format="fhir", sites=1, patients=60)
    from wardround.client.settings import read_settings

    contract = DataContract.model_validate(json.loads((place / CONTRACT_FILE).read_text()))
    observations = place / "north" / "data" / "fhir" / "Observation.ndjson"
    lines = observations.read_text().splitlines()
    lines[10] = lines[10][:40]
    observations.write_text("\n".join(lines) + "\n")
    found = check(gather(contract, read_settings(place / "north"), place / "north", Alternate()))
    assert any("a line that is no JSON object in UTF-8" in one.sentence for one in found if one.code == "left out")


def test_real_slices_are_looked_at_without_a_planted_identifier(wardround_data: Path, tmp_path: Path) -> None:
    from wardround.client.readiness import for_consortium
    from wardround.conf.compose import compose_configuration
    from wardround.conf.schema import parse_configuration

    contract = parse_configuration(compose_configuration(["study=lung_ct"])).contract
    folder = wardround_data / "lung_ct_dicom"
    with (folder / "labels.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["file"].startswith("dicom/washu/")]
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("file,contrast\n")
        file.writelines(f"{row['file'].removeprefix('dicom/washu/')},{row['contrast']}\n" for row in rows)
    source = DataSource(
        connector="dicom", path=str(folder / "dicom" / "washu"),
        labels=LabelTable(path=str(tmp_path / "labels.csv"), key="file"),
    )  # fmt: skip
    gathered = gather(contract, SiteSettings(data=(source,)), tmp_path, Alternate())
    found = check(gathered)
    assert not [one for one in found if one.severity is Severity.STOPS]
    assert any(one.code == "left out" and one.count == 3 for one in found)
    said = json.dumps([one.sentence for one in found]) + json.dumps(for_consortium(gathered, found, "washu", "d"))
    planted = json.loads((folder / "phi_manifest.json").read_text())

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for each in value.values() for text in texts(each)]
        if isinstance(value, list):
            return [text for each in value for text in texts(each)]
        return [str(value)]

    identifiers = {text for text in texts(planted) if len(text) >= 6 and not text.isalpha()}
    assert len(identifiers) > 100 and not [text for text in identifiers if text in said]
