"""What a researcher would write in an afternoon to read one synthetic hospital: the library's own loop, no checks.

Each takes the folder of a site and gives the number of patients or pictures. None looks at a contract, a unit, a
duplicate or a broken cell, so the ratio beside ours is the price of those checks.
"""

import csv
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np


def read_csv(folder: Path) -> int:
    (file,) = (folder / "data").glob("*.csv")
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    return _numbers(rows[1:])


def read_parquet(folder: Path) -> int:
    import pyarrow.parquet as pq

    (file,) = (folder / "data").glob("*.parquet")
    table = pq.read_table(file)
    return len(np.column_stack([np.asarray(table.column(name)) for name in table.column_names]))


def read_excel(folder: Path) -> int:
    from openpyxl import load_workbook

    (file,) = (folder / "data").glob("*.xlsx")
    sheet = load_workbook(file, read_only=True).worksheets[0]
    rows = list(sheet.iter_rows(values_only=True))
    return _numbers([["" if cell is None else str(cell) for cell in row] for row in rows[1:]])


def read_sqlite(folder: Path) -> int:
    from sqlalchemy import create_engine, inspect, text

    (file,) = (path for path in (folder / "data").iterdir() if path.suffix in (".sqlite", ".db", ".sqlite3"))
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        (name,) = inspect(connection).get_table_names()
        rows = connection.execute(text(f"SELECT * FROM {name}")).all()
    return _numbers([["" if cell is None else str(cell) for cell in row] for row in rows])


def read_omop(folder: Path) -> int:
    tables = folder / "data" / "omop"
    people = {row["person_id"]: row["year_of_birth"] for row in _dicts(tables / "person.csv")}
    index: dict[str, datetime] = {}
    for row in _dicts(tables / "condition_occurrence.csv"):
        day = datetime.fromisoformat(row["condition_start_date"])
        if row["person_id"] not in index or day < index[row["person_id"]]:
            index[row["person_id"]] = day
    last: dict[tuple[str, str], tuple[datetime, str]] = {}
    for row in _dicts(tables / "measurement.csv"):
        at = datetime.fromisoformat(row["measurement_datetime"] or row["measurement_date"])
        key = (row["person_id"], row["measurement_concept_id"])
        if row["person_id"] in index and (key not in last or at > last[key][0]):
            last[key] = (at, row["value_as_number"])
    return len(people)


def read_fhir(folder: Path) -> int:
    source = folder / "data" / "fhir"
    people = {resource["id"] for resource in _lines(source / "Patient.ndjson")}
    last: dict[tuple[str, str], tuple[str, float]] = {}
    for resource in _lines(source / "Observation.ndjson"):
        quantity = resource.get("valueQuantity")
        key = (resource["subject"]["reference"], resource["code"]["coding"][0]["code"])
        at = resource.get("effectiveDateTime", "")
        if quantity and (key not in last or at > last[key][0]):
            last[key] = (at, float(quantity["value"]))
    for kind in ("Condition", "MedicationRequest", "Encounter"):
        for resource in _lines(source / f"{kind}.ndjson"):
            assert resource["subject"]
    return len(people)


def read_hl7v2(folder: Path) -> int:
    import hl7

    people: set[str] = set()
    last: dict[tuple[str, str], str] = {}
    for file in sorted((folder / "data").rglob("*.hl7")):
        for part in file.read_text().replace("\r\n", "\r").replace("\n", "\r").split("MSH|")[1:]:
            message = hl7.parse("MSH|" + part.strip("\x0b\x1c\r"))
            patient = str(message.segment("PID")[3][0][0])
            people.add(patient)
            for segment in message:
                if str(segment[0]) == "OBX":
                    last[patient, str(segment[3])] = str(segment[5])
    return len(people)


def read_dicom(folder: Path) -> int:
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut

    count = 0
    for file in sorted(folder.rglob("*.dcm")):
        dataset = dcmread(file)
        values = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), np.float32)
        count += bool(values.size)
    return count


def read_nifti(folder: Path) -> int:
    import nibabel

    count = 0
    for file in sorted((folder / "data" / "nifti" / "images").glob("*.nii*")):
        count += bool(nibabel.load(file).get_fdata(dtype=np.float32).size)  # type: ignore[attr-defined]
    return count


def read_png(folder: Path) -> int:
    from PIL import Image

    count = 0
    for file in sorted((folder / "data" / "images").iterdir()):
        with Image.open(file) as picture:
            count += bool(np.asarray(picture.convert("L"), np.float32).size)
    return count


PLAIN: dict[str, Callable[[Path], int]] = {
    "csv": read_csv,
    "parquet": read_parquet,
    "excel": read_excel,
    "sqlite": read_sqlite,
    "omop": read_omop,
    "fhir": read_fhir,
    "hl7v2": read_hl7v2,
    "dicom": read_dicom,
    "nifti": read_nifti,
    "png": read_png,
}
"""By the format of ``wardround data make-cohort``."""


def _dicts(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _lines(file: Path) -> list[dict[str, object]]:
    with file.open() as lines:
        return [json.loads(line) for line in lines]


def _numbers(rows: list[list[str]]) -> int:
    found = 0
    for row in rows:
        for cell in row[1:]:
            try:
                float(cell)
            except ValueError:
                continue
        found += 1
    return found
