"""Patients as CSV: a header line, UTF-8, an empty cell where a value is missing; every second hospital writes ';'."""

from pathlib import Path

from pyarrow import csv

from wardround.client.settings import DataSource
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import SCHEMA, batches


def write_csv(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/patients.csv`` of a site's folder."""
    delimiter = ";" if hospital.number % 2 else ","
    options = csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
    with csv.CSVWriter(folder / "data" / "patients.csv", SCHEMA, write_options=options) as writer:
        for batch in batches(hospital, count):
            writer.write_batch(batch)
    return DataSource(connector="csv", path="data/patients.csv", options={"delimiter": delimiter})
