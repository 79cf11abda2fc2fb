"""Helpers of the readers of clinical systems."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

Rows = list[dict[str, Any]]

HEART: Rows = [
    {"patient": "p1", "age": 63, "sex": "male", "trestbps": 145.0, "chol": 233.0, "fbs": "snomed:373066001", "sick": 0},
    {"patient": "p2", "age": 67, "sex": "male", "trestbps": 160.0, "chol": 286.0, "fbs": "snomed:373067005", "sick": 1},
    {"patient": "p3", "age": 41, "sex": "female", "trestbps": 130.0, "chol": None, "fbs": None, "sick": 0},
    {"patient": "p4", "age": 56, "sex": None, "trestbps": None, "chol": 236.5, "fbs": "snomed:373067005", "sick": 1},
]
"""A heart-like table. Every value was taken at 09:00 UTC on 1 March 2024."""

HEART_COHORT: dict[str, Any] = {
    "index": {"kind": "encounter", "take": "last"},
    "columns": {
        "age": {"from": "age"},
        "sex": {"from": "sex"},
        "trestbps": {"from": "measurement", "codes": ["loinc:8480-6"], "unit": "mm[Hg]"},
        "chol": {"from": "measurement", "codes": ["loinc:2093-3"], "unit": "mg/dL", "days_before": 30},
        "fbs": {"from": "measurement", "codes": ["local:FBS"]},
        "sick": {"from": "condition", "codes": ["icd10:I25.1"], "take": "exists", "days_after": 365},
    },
}


@pytest.fixture
def heart() -> tuple[Rows, dict[str, Any]]:
    """The table and the specification that makes it."""
    return HEART, HEART_COHORT


@pytest.fixture
def as_rows() -> Callable[[Iterator[pa.RecordBatch]], Rows]:
    """Batches as one list of rows."""

    def made(batches: Iterator[pa.RecordBatch]) -> Rows:
        found: Rows = pa.Table.from_batches(batches).to_pylist()
        return found

    return made


@pytest.fixture
def fixtures() -> Path:
    return Path(__file__).parents[2] / "fixtures"
