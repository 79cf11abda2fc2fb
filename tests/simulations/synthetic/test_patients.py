"""Synthetic patients have the published effects, and nobody else's records."""

import tracemalloc
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from lifelines import CoxPHFitter
from sklearn.linear_model import LogisticRegression

from wardround.client.connectors.cohort_spec import parse_spec
from wardround.client.connectors.table import apply_contract
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic import clinical
from wardround.simulations.synthetic.hospitals import Hospital, hospitals
from wardround.simulations.synthetic.patients import BLOCK, batches, patients

COUNT = 8000
CENTER_SCALE = {
    "age": (70, 10), "systolic": (130, 20), "heart_rate": (80, 15), "creatinine": (1.1, 0.4), "hemoglobin": (13, 1.8),
    "potassium": (4.3, 0.5),
}  # fmt: skip
"""The scaling that docs/synthetic.md publishes, not read from the contract."""


def complete(hospital: Hospital, count: int = COUNT) -> pd.DataFrame:
    return pa.Table.from_batches(batches(hospital, count)).to_pandas().dropna()


def design(table: pd.DataFrame) -> pd.DataFrame:
    scaled = {
        name: (table[name] - CENTER_SCALE[name][0]) / CENTER_SCALE[name][1] if name in CENTER_SCALE else table[name]
        for name in clinical.EFFECTS
    }
    return pd.DataFrame(scaled)


@pytest.mark.parametrize("number", [0, 1, 2, 3, None])
def test_a_logistic_regression_finds_the_published_coefficients_at_each_hospital_and_in_all(number: int | None) -> None:
    sites = hospitals(4, seed=3)
    table = pd.concat([complete(site) for site in (sites if number is None else sites[number : number + 1])])
    x, y = design(table), table["kidney_injury"]
    fitted = LogisticRegression(C=1e8, max_iter=1000, tol=1e-8).fit(x, y)
    p = fitted.predict_proba(x)[:, 1]
    full = np.column_stack([np.ones(len(x)), x])
    error = np.sqrt(np.diag(np.linalg.inv(full.T @ (full * (p * (1 - p))[:, None]))))
    found = np.array([fitted.intercept_[0], *fitted.coef_[0]])
    true = np.array([-2.4, *clinical.EFFECTS.values()])
    # 55 coefficients in five fits: the largest of so many standard normals is below 4 in 99.7 % of cohorts.
    assert np.abs((found - true) / error).max() < 4
    assert error.max() < 0.12
    # An effect that was swapped or dropped would be far outside.
    assert np.abs(np.delete(true, 9) / np.delete(error, 9)).min() > 1.5


def test_a_cox_regression_finds_the_published_hazards() -> None:
    table = pd.concat([complete(site, 3000) for site in hospitals(4, seed=3)])
    x = design(table)[list(clinical.HAZARDS)].assign(time=table["follow_up_days"], died=table["died"])
    fitted = CoxPHFitter().fit(x, "time", "died")
    z = (fitted.params_ - pd.Series({"age": 0.50, "creatinine": 0.40, "hemoglobin": -0.30})) / fitted.standard_errors_
    assert z.abs().max() < 4
    assert table["follow_up_days"].between(1, 1500).all()


def test_hospitals_differ_in_their_patients() -> None:
    tables = [pa.Table.from_batches(batches(site, 5000)).to_pandas() for site in hospitals(4, seed=3)]
    ages = [table["age"].mean() for table in tables]
    assert np.allclose(ages, (70, 64, 74, 58), atol=0.7)
    assert [round(table["potassium"].isna().mean(), 2) for table in tables] == [0.02, 0.1, 0.05, 0.0]
    prevalence = [table["kidney_injury"].mean() for table in tables]
    assert max(prevalence) - min(prevalence) > 0.04


def test_every_row_meets_the_contract_and_missing_values_are_counted() -> None:
    table = pa.Table.from_batches(batches(hospitals(2, seed=1)[1], 2500))
    records = apply_contract(table, clinical.CONTRACT, "south")
    assert len(records.targets) == 2500 and records.excluded == {}
    indicators = [clinical.CONTRACT.feature_names.index(f"{name} missing") for name in clinical.LABORATORY]
    assert (records.features[:, indicators].sum(0) == [table[name].null_count for name in clinical.LABORATORY]).all()
    survival = apply_contract(table, clinical.SURVIVAL_CONTRACT, "south")
    assert survival.targets.shape == (2500, 2)


def test_the_contract_and_the_cohort_specification_name_the_same_columns() -> None:
    for options in ({}, {"drugs": False}, {"descendants": True}):
        spec = parse_spec(clinical.cohort_options(**options))
        assert set(clinical.CONTRACT.column_names) - set(spec.columns) - {"patient"} <= {"furosemide"}
    DataContract.model_validate(clinical.CONTRACT.model_dump())


def test_the_same_seed_makes_the_same_patients_and_more_patients_change_none() -> None:
    few, many = (pa.Table.from_batches(batches(hospitals(1, seed=5)[0], count)) for count in (1500, 2700))
    assert many.slice(0, 1500).equals(few)
    other = pa.Table.from_batches(batches(hospitals(1, seed=6)[0], 1500))
    assert not other.drop(["patient"]).equals(few.drop(["patient"]))
    first, again = (list(patients(hospitals(3, seed=5)[2], count)) for count in (BLOCK + 3, BLOCK + 40))
    assert again[: BLOCK + 3] == first


def test_rows_of_the_table_and_of_the_patients_with_events_are_the_same() -> None:
    site = hospitals(2, seed=5)[1]
    rows = [patient.row for patient in patients(site, BLOCK + 200)]
    assert pa.Table.from_batches(batches(site, BLOCK + 200)).to_pylist() == rows


def whole_years(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def test_birth_death_and_stay_agree_with_the_row() -> None:
    for patient in patients(hospitals(1, seed=5)[0], 2000):
        assert whole_years(patient.person.birth, patient.admitted) == patient.row["age"]
        assert (patient.died is not None) == bool(patient.row["died"])
        if patient.died is not None:
            assert (patient.died - patient.admitted).days == patient.row["follow_up_days"]
            assert max(event.day for event in patient.events) <= patient.died
            assert patient.discharged <= patient.died


def test_events_hold_the_traps_that_the_page_promises() -> None:
    found = list(patients(hospitals(4, seed=5)[3], 1000))
    south = list(patients(hospitals(2, seed=5)[1], 1000))
    late = [
        event for patient in found for event in patient.events
        if event.concept == clinical.KIDNEY_INJURY and (event.day - patient.admitted).days > 30
    ]  # fmt: skip
    early = [
        event for patient in found for event in patient.events
        if event.concept == clinical.KIDNEY_INJURY and event.day < patient.admitted
    ]  # fmt: skip
    assert len(late) > 20 and len(early) > 40
    too_old = [
        event for patient in south if patient.row["hemoglobin"] is None for event in patient.events
        if event.concept == clinical.LABORATORY["hemoglobin"]
    ]  # fmt: skip
    assert len(too_old) > 60
    units = {event.unit for patient in found for event in patient.events if event.kind == "measurement"}
    assert units == {"umol/L", "g/L", "mmol/L", "mm[Hg]", "/min"}


def test_a_hundred_thousand_patients_do_not_lie_in_memory() -> None:
    tracemalloc.start()
    try:
        rows = sum(batch.num_rows for batch in batches(hospitals(1, seed=0)[0], 100_000))
        for _ in patients(hospitals(1, seed=0)[0], 1200):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 100_000
    assert peak < 20e6


def test_a_number_of_sites_out_of_range_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="0 sites"):
        hospitals(0, 1)
    assert len({site.name for site in hospitals(99, 1)}) == 99
