"""Patients in a SQLite database, and the same table as a script for ``psql`` (COPY in text format)."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from wardround.client.settings import DataSource
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import SCHEMA, batches

TABLE: Final = "patients"
_TYPES: Final = {pa.string(): ("TEXT", "text"), pa.int64(): ("INTEGER", "integer"), pa.float64(): ("REAL", "numeric")}


def write_sqlite(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/patients.sqlite`` and ``data/postgresql.sql`` of a site's folder, both with the table ``patients``.

    ``data/database.yaml`` names the SQLite file, as the connector wants it.
    """
    marks = ", ".join("?" * len(SCHEMA))
    with closing(sqlite3.connect(folder / "data" / "patients.sqlite")) as database:
        database.execute(_create(0))
        with (folder / "data" / "postgresql.sql").open("w", encoding="utf-8", newline="\n") as script:
            script.write(f"{_create(1)};\nCOPY {TABLE} ({', '.join(SCHEMA.names)}) FROM stdin;\n")
            for batch in batches(hospital, count):
                rows = list(_rows(batch))
                database.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", rows)
                script.writelines(map(copy_line, rows))
            script.write("\\.\n")
        database.commit()
    (folder / "data" / "database.yaml").write_text("url: sqlite:///patients.sqlite\n", encoding="utf-8")
    return DataSource(connector="sql", path="data/database.yaml", options={"table": TABLE})


def copy_line(row: Iterable[Any]) -> str:
    r"""One row as COPY's text format has it: tabs between cells, \N for null, backslash escapes."""
    return "\t".join("\\N" if cell is None else _escaped(str(cell)) for cell in row) + "\n"


def _escaped(cell: str) -> str:
    for mark, letter in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        cell = cell.replace(mark, letter)
    return cell


def _create(dialect: int) -> str:
    columns = [f"{field.name} {_TYPES[field.type][dialect]}" for field in SCHEMA]
    columns[0] += " PRIMARY KEY"
    return f"CREATE TABLE {TABLE} ({', '.join(columns)})"


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
