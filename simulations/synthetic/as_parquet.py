"""Patients as Apache Parquet: typed columns, nulls where a value is missing, a row group for each block."""

from pathlib import Path

from pyarrow import parquet

from wardround.client.settings import DataSource
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import SCHEMA, batches


def write_parquet(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/patients.parquet`` of a site's folder."""
    with parquet.ParquetWriter(folder / "data" / "patients.parquet", SCHEMA) as writer:
        for batch in batches(hospital, count):
            writer.write_batch(batch)
    return DataSource(connector="parquet", path="data/patients.parquet")
