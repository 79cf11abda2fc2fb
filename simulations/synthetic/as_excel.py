"""Patients as an Excel workbook: numbers as numbers, empty cells for missing values, a second sheet with notes."""

from pathlib import Path
from typing import Final

from openpyxl import Workbook

from wardround.client.settings import DataSource
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import SCHEMA, batches

MOST_ROWS: Final = 1_048_575
"""Of a sheet, below its header."""


def write_excel(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/patients.xlsx`` of a site's folder. Raises UsageError for more patients than a sheet has rows."""
    if count > MOST_ROWS:
        raise UsageError(f"a sheet holds {MOST_ROWS:,} patients", "make fewer, or write another format")
    book = Workbook(write_only=True)
    sheet, notes = book.create_sheet("patients"), book.create_sheet("notes")
    sheet.append(SCHEMA.names)
    for batch in batches(hospital, count):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            sheet.append(row)
    notes.append(["Synthetic: no person is behind any row."])
    book.save(folder / "data" / "patients.xlsx")
    return DataSource(connector="excel", path="data/patients.xlsx")
