"""The heart disease table from the package index is, row for row, the UCI originals."""

import csv
from pathlib import Path

import numpy as np
import pytest

from wardround.protocol.errors import UsageError
from wardround.simulations.datasets import HEART_COLUMNS, heart_disease, load_dataset


def original(folder: Path, site: str) -> list[list[float]]:
    with (folder / "heart_disease" / f"processed.{site}.data").open() as lines:
        return [[float("nan") if cell == "?" else float(cell) for cell in row] for row in csv.reader(lines)]


def test_all_920_rows_equal_the_originals_in_their_order(wardround_data: Path) -> None:
    rows = 0
    for part in heart_disease("complete").tables:
        mine = [
            [float("nan") if row[name] in ("", "?", None) else float(row[name]) for name in HEART_COLUMNS]
            for row in part.table.to_pylist()
        ]
        assert part.table.column_names == [*HEART_COLUMNS, "patient"]
        assert part.table.column("patient").to_pylist() == [f"{part.site}-{n:03d}" for n in range(1, len(mine) + 1)]
        np.testing.assert_array_equal(np.array(mine), np.array(original(wardround_data, part.site)))
        rows += len(mine)
    assert rows == 920


def test_the_split_is_the_published_one(wardround_data: Path) -> None:
    test: dict[str, list[int]] = {}
    with (wardround_data / "heart_disease" / "split_flamby.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row["split"] == "test":
                test.setdefault(row["hospital"], []).append(int(row["row"]))
    assert {part.site: part.test_rows.tolist() for part in heart_disease("complete").tables} == test


def test_the_split_of_all_patients_keeps_every_test_patient_a_test_patient() -> None:
    small, large = heart_disease("complete"), heart_disease("all")
    for one, two in zip(small.tables, large.tables, strict=True):
        assert set(one.test_rows.tolist()) <= set(two.test_rows.tolist())


def test_unknown_names_are_answered_with_what_was_meant() -> None:
    with pytest.raises(UsageError, match="no data set"):
        load_dataset("heart", "complete")
    with pytest.raises(UsageError, match="no split"):
        load_dataset("heart_disease", "train")
