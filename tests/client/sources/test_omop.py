"""OMOP tables: the same rows from files and databases, equal to what the tables hold by another way of reading them."""

import csv
import io
import sqlite3
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import text

from wardround.client.connectors import read_table
from wardround.client.connectors.events import Tally
from wardround.client.connectors.omop import read_omop
from wardround.protocol.errors import UsageError

PERSON = """person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,care_site_id
1,8507,1960,3,1,7
2,8532,1970,,,
3,0,1980,6,15,7
"""
CONDITION = """condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_source_value
1,1,100,2026-02-01,I50
2,1,110,2026-01-15,I50.1
3,2,100,2026-02-10,I50
4,3,999,2026-02-10,J18
5,2,110,,I50.1
"""
MEASUREMENT = """MEASUREMENT_ID,PERSON_ID,MEASUREMENT_CONCEPT_ID,MEASUREMENT_DATE,MEASUREMENT_DATETIME,VALUE_AS_NUMBER,\
UNIT_CONCEPT_ID,OPERATOR_CONCEPT_ID,UNIT_SOURCE_VALUE
1,1,3000963,2026-01-10,2026-01-10 08:00:00,13.1,8713,4172703,
2,1,3000963,2026-01-14,2026-01-14 08:00:00,120,8636,,
3,1,3000963,2026-01-14,2026-01-14 09:00:00,5,8713,4171756,
4,2,3000963.0,2026-02-09,,9.5,8713,0,
5,1,3000963,2026-03-01,,99,8713,,
"""
CONCEPT = """concept_id,concept_name,vocabulary_id,concept_code
100,Heart failure,SNOMED,84114007
110,Left heart failure,SNOMED,85232009
3000963,Hemoglobin,LOINC,718-7
8713,gram per deciliter,UCUM,g/dL
8636,gram per liter,UCUM,g/L
"""
ANCESTOR = """ancestor_concept_id,descendant_concept_id
100,100
100,110
"""
TABLES = {
    "person": PERSON, "condition_occurrence": CONDITION, "MEASUREMENT": MEASUREMENT, "concept": CONCEPT,
    "concept_ancestor": ANCESTOR, "care_site": "care_site_id,care_site_name\n7,Ward 7\n",
}  # fmt: skip

COHORT = {
    "index": {"kind": "condition", "codes": ["snomed:84114007"], "take": "first"},
    "columns": {
        "age": {"from": "age"},
        "sex": {"from": "sex"},
        "ward": {"from": "site_of_care"},
        "hb": {"from": "measurement", "codes": ["loinc:718-7"], "take": "last", "unit": "g/dL", "days_before": 30},
        "left": {"from": "condition", "codes": ["concept:110"], "take": "exists"},
        "named": {"from": "condition", "codes": ["local:I50"], "take": "count", "days_after": 60},
    },
}
EXPECTED = [
    {"patient": "1", "age": 65, "sex": "male", "ward": "Ward 7", "hb": 12.0, "left": 1, "named": 1},
    {"patient": "2", "age": 55, "sex": "female", "ward": None, "hb": 9.5, "left": 0, "named": 1},
]
"""By hand: person 1's first heart failure is a left one, on 15 January, by a concept below; 120 g/L are 12 g/dL."""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "cdm"
    folder.mkdir()
    for name, content in TABLES.items():
        (folder / f"{name}.csv").write_text(content)
    return folder


def cells(content: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(io.StringIO(content))
    return [name.lower() for name in header], [row for row in rows if row]


def test_a_folder_of_files_gives_the_rows_that_can_be_found_by_hand(export: Path) -> None:
    tally = Tally()
    found = pa.Table.from_batches(list(read_omop(export, cohort=COHORT, tally=tally)))
    assert found.to_pylist() == EXPECTED
    assert tally.counts["a patient without the index"] == 1
    assert any("bound" in reason for reason in tally.counts), "'< 5' is counted and never used"


def test_only_the_asked_columns_are_made(export: Path) -> None:
    found = read_table("omop", export, {"cohort": COHORT}, ["patient", "hb"])
    assert found.to_pylist() == [{"patient": "1", "hb": 12.0}, {"patient": "2", "hb": 9.5}]


def test_a_zip_with_tabs_and_another_case_is_the_same(export: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cdm.zip", "w") as archive:
        for name, content in TABLES.items():
            archive.writestr(f"out/{name.upper()}.CSV", content.replace(",", "\t"))
    assert read_table("omop", tmp_path / "cdm.zip", {"cohort": COHORT}).to_pylist() == EXPECTED


def test_a_sqlite_database_gives_the_same_rows(export: Path, tmp_path: Path) -> None:
    store = sqlite3.connect(tmp_path / "cdm.sqlite")
    for name, content in TABLES.items():
        header, rows = cells(content)
        store.execute(f"CREATE TABLE {name.lower()} ({', '.join(header)})")
        typed = [[_typed(cell) for cell in row] for row in rows]
        store.executemany(f"INSERT INTO {name.lower()} VALUES ({', '.join('?' * len(header))})", typed)
    store.commit()
    store.close()
    (tmp_path / "cdm.yaml").write_text("url: sqlite:///cdm.sqlite")
    assert read_table("omop", tmp_path / "cdm.yaml", {"cohort": COHORT}).to_pylist() == EXPECTED


def _typed(cell: str) -> Any:
    try:
        return int(float(cell)) if float(cell).is_integer() else float(cell)
    except ValueError:
        return cell or None


def _kind(column: str, kinds: dict[str, str]) -> str:
    return next((kind for end, kind in kinds.items() if column.endswith(end)), "text")


@pytest.mark.server("postgres")
def test_postgres_gives_the_same_rows_from_a_schema_of_its_own(postgres: Any, tmp_path: Path) -> None:
    kinds = {"_id": "bigint", "_date": "date", "datetime": "timestamp", "number": "numeric", "birth": "integer"}
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS cdm CASCADE"))
        connection.execute(text("CREATE SCHEMA cdm"))
        connection.execute(text("GRANT USAGE ON SCHEMA cdm TO reader"))
        for name, content in TABLES.items():
            header, rows = cells(content)
            types = ["text" if of == "vocabulary_id" else _kind(of, kinds) for of in header]
            columns = ", ".join(f"{column} {kind}" for column, kind in zip(header, types, strict=True))
            connection.execute(text(f"CREATE TABLE cdm.{name.lower()} ({columns})"))
            for row in rows:
                quoted = [f"'{cell.removesuffix('.0')}'" if cell else "NULL" for cell in row]
                values = ", ".join(quoted)
                connection.execute(text(f"INSERT INTO cdm.{name.lower()} VALUES ({values})"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA cdm TO reader"))
    found = read_table("omop", postgres.source(tmp_path), {"cohort": COHORT, "schema": "cdm"})
    assert found.to_pylist() == EXPECTED


@pytest.mark.parametrize(
    ("code", "said"),
    [("loinc:0000-0", "has no concept 'loinc:0000-0'"), ("kdigo:1", "the system of 'kdigo:1' is no vocabulary")],
)
def test_a_code_that_the_vocabulary_does_not_have_is_named(export: Path, code: str, said: str) -> None:
    cohort = {"columns": {"x": {"from": "condition", "codes": [code], "take": "exists"}}}
    with pytest.raises(UsageError, match=said):
        read_table("omop", export, {"cohort": cohort})


def test_without_a_vocabulary_concepts_are_named_by_number(export: Path) -> None:
    (export / "concept.csv").unlink()
    (export / "concept_ancestor.csv").unlink()
    cohort = {"columns": {"n": {"from": "condition", "codes": ["concept:100"], "take": "count"}}}
    found = read_table("omop", export, {"cohort": cohort})
    assert found.to_pylist() == [{"patient": str(n), "n": count} for n, count in ((1, 1), (2, 1), (3, 0))]


def test_what_is_no_export_is_named_without_its_content(tmp_path: Path, export: Path) -> None:
    cohort = {"columns": {"age": {"from": "age"}}}
    with pytest.raises(UsageError, match="no file or folder 'none'"):
        read_table("omop", tmp_path / "none", {"cohort": cohort})
    (export / "person.csv").write_bytes(PERSON.encode() + b"4,8507,19\xff1,271828")
    with pytest.raises(UsageError, match=r"'person\.csv' is no CSV file in UTF-8") as error:
        read_table("omop", export, {"cohort": cohort})
    assert "271828" not in error.value.lines()
    (export / "person.csv").write_text(PERSON + "4,8507\n")
    with pytest.raises(UsageError, match=r"'person\.csv' line 5 has too few cells"):
        read_table("omop", export, {"cohort": cohort})
    (export / "person.csv").unlink()
    with pytest.raises(UsageError, match="no table 'person'"):
        read_table("omop", export, {"cohort": cohort})


def test_gastrointestinal_bleeding_has_479_patients(wardround_data: Path) -> None:
    """The known count of OHDSI's set; ages and counts by a plain reading of the same tables."""
    path = wardround_data / "emr_formats" / "omop53_gibleed.zip"
    cohort = {
        "index": {"kind": "condition", "codes": ["concept:192671"], "take": "first"},
        "columns": {
            "age": {"from": "age"},
            "bleeds": {"from": "condition", "codes": ["concept:192671"], "take": "count", "days_after": 36500},
        },
    }
    found = read_table("omop", path, {"cohort": cohort}).to_pylist()
    with zipfile.ZipFile(path) as archive:
        tables = {}
        for name in archive.namelist():
            if "person" in name or "condition_occurrence" in name:
                header, *rows = csv.reader(io.TextIOWrapper(archive.open(name), "utf-8-sig"))
                lowered = [column.lower() for column in header]
                tables[Path(name).stem.lower()] = [dict(zip(lowered, row, strict=True)) for row in rows]
    bleeds: dict[str, list[str]] = {}
    for row in tables["condition_occurrence"]:
        if row["condition_concept_id"].removesuffix(".0") == "192671":
            bleeds.setdefault(row["person_id"].removesuffix(".0"), []).append(row["condition_start_date"][:10])
    assert len(found) == len(bleeds) == 479
    born = {row["person_id"].removesuffix(".0"): row for row in tables["person"]}
    for row in found:
        days, person = sorted(bleeds[row["patient"]]), born[row["patient"]]
        birth = date(*(int(float(person[f"{part}_of_birth"] or 1)) for part in ("year", "month", "day")))
        first = date.fromisoformat(days[0])
        assert row["bleeds"] == len(days)
        assert row["age"] == first.year - birth.year - ((first.month, first.day) < (birth.month, birth.day))
