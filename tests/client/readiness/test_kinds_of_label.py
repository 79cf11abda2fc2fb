"""The check of a site's data knows every kind of label: what is stated, what a round would refuse, what leaks."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.readiness import Finding, Severity, check, gather
from wardround.client.readiness.consortium import for_consortium
from wardround.client.settings import DataSource, SiteSettings
from wardround.client.store.members import Part
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.labels import Finding as Stated
from wardround.protocol.labels import FindingsLabel, NumberLabel, SurvivalLabel

RANDOM = np.random.Generator(np.random.PCG64(21))
PATIENTS = 120
AGE = NumberColumn(name="age", meaning="Age", unit="a", minimum=18, maximum=110, center=60, scale=15)
FINDINGS = FindingsLabel(
    meaning="Findings",
    findings=(
        Stated(column="opacity", meaning="Opacity", unknown=("-1",)),
        Stated(column="effusion", meaning="Effusion"),
    ),
)
PRESSURE = NumberLabel(
    column="pressure", meaning="Systolic pressure", unit="mm[Hg]", minimum=60, maximum=260, missing_codes=(0,)
)
DEATH = SurvivalLabel(time="days", event="died", meaning="Death", unit="d", maximum_time=4000)
Rows = list[dict[str, Any]]


class Everybody:
    def parts(self, ids: Any) -> list[Part | None]:
        return [Part.TEST if number % 3 == 0 else Part.TRAIN for number in range(len(ids))]


@pytest.fixture
def rows() -> Rows:
    return [
        {
            "who": f"p{number:03d}", "age": int(RANDOM.integers(30, 90)), "opacity": int(RANDOM.integers(-1, 2)),
            "effusion": int(RANDOM.integers(0, 2)), "pressure": round(float(RANDOM.normal(130, 15)), 1),
            "days": int(RANDOM.integers(1, 3000)), "died": int(RANDOM.integers(0, 2)),
        }
        for number in range(PATIENTS)
    ]  # fmt: skip


@pytest.fixture
def looked(tmp_path: Path) -> Callable[[Rows, Any], Any]:
    def look(rows: Rows, label: Any) -> Any:
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        contract = DataContract(columns=(AGE,), label=label, patient_id="who")
        settings = SiteSettings(data=(DataSource(connector="csv", path="table.csv"),))
        return gather(contract, settings, tmp_path, Everybody())

    return look


def serious(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(each.code, each.column) for each in findings if each.severity is not Severity.FINE}


@pytest.mark.parametrize("label", [FINDINGS, PRESSURE, DEATH])
def test_good_data_are_ready(looked: Callable[..., Any], rows: Rows, label: Any) -> None:
    found = looked(rows, label)
    assert serious(check(found)) == set()


def test_each_finding_is_counted_on_those_of_whom_it_is_stated(looked: Callable[..., Any], rows: Rows) -> None:
    said = {each.column: each.sentence for each in check(looked(rows, FINDINGS)) if each.code == "prevalence"}
    known = [row["opacity"] for row in rows if row["opacity"] != -1]
    assert said["opacity"].startswith(f"{sum(known)} of {len(known)} records have 'Opacity'")
    assert said["effusion"].startswith(f"{sum(row['effusion'] for row in rows)} of {PATIENTS} records")


def test_a_finding_that_everybody_has_and_one_that_nobody_states_are_named(
    looked: Callable[..., Any], rows: Rows
) -> None:
    changed = [row | {"opacity": 1, "effusion": ""} for row in rows]
    assert {("one class", "opacity"), ("one class", "effusion")} <= serious(check(looked(changed, FINDINGS)))


def test_codes_and_quantities_that_a_round_would_refuse_are_counted(looked: Callable[..., Any], rows: Rows) -> None:
    wrong = [row | ({"opacity": 7} if number < 4 else {}) for number, row in enumerate(rows)]
    (fault,) = (each for each in check(looked(wrong, FINDINGS)) if each.code == "unknown code")
    assert (fault.column, fault.count, fault.severity) == ("opacity", 4, Severity.STOPS)
    wrong = [row | ({"pressure": 900} if number < 3 else {}) for number, row in enumerate(rows)]
    (fault,) = (each for each in check(looked(wrong, PRESSURE)) if each.code == "outside")
    assert (fault.column, fault.count) == ("pressure", 3)
    wrong = [row | ({"days": 9000} if number < 5 else {}) for number, row in enumerate(rows)]
    (fault,) = (each for each in check(looked(wrong, DEATH)) if each.code == "outside")
    assert (fault.column, fault.count) == ("days", 5)


def test_a_code_for_missing_is_no_fault_and_no_value(looked: Callable[..., Any], rows: Rows) -> None:
    found = looked([row | ({"pressure": 0} if number < 30 else {}) for number, row in enumerate(rows)], PRESSURE)
    assert found.columns["pressure"].missing == 30 and np.isfinite(found.label).sum() == PATIENTS - 30
    assert serious(check(found)) == set()


def test_a_quantity_in_another_unit_is_named(looked: Callable[..., Any], rows: Rows) -> None:
    changed = [row | {"pressure": round(row["pressure"] * 0.133322, 2)} for row in rows]
    (unit,) = (each for each in check(looked(changed, PRESSURE)) if each.code == "unit")
    assert unit.column == "pressure" and "kPa" in unit.sentence and unit.severity is Severity.STOPS


def test_a_column_that_tells_the_quantity_or_a_finding_is_a_leak(looked: Callable[..., Any], rows: Rows) -> None:
    changed = [row | {"age": 20 + row["pressure"] / 4} for row in rows]
    assert ("leak", "age") in serious(check(looked(changed, PRESSURE)))
    either = [row | {"age": 80 if row["opacity"] == 1 or row["effusion"] == 1 else 30} for row in rows]
    assert ("leak", "age") in serious(check(looked(either, FINDINGS)))


def test_nothing_of_a_quantity_or_of_findings_is_in_what_others_may_see(looked: Callable[..., Any], rows: Rows) -> None:
    for label in (FINDINGS, PRESSURE):
        found = looked(rows, label)
        said = for_consortium(found, check(found), "north", "f" * 64)
        assert said["label_positive"] is None and said["patients"] == PATIENTS and said["ready"]
        assert set(said["unusable"]) == {"age"}
