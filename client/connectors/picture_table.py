"""Whose picture a file is, where the file itself does not say: a CSV table beside the pictures."""

from pathlib import Path
from typing import Final

from wardround.client.connectors.csv import read_csv
from wardround.protocol.errors import UsageError

NO_ROW: Final = "picture without a row in the table"
NO_FILE: Final = "row of the table without a picture"
OUTSIDE: Final = "row of the table that names a place outside the source"


def patients_by_file(table: Path, file: str, patient: str) -> dict[str, str]:
    """The patient of each file, '' where the cell is empty; a file is named by its path below the source's folder.

    Args:
        table: a CSV file; others can be had as an option of the label table.
        file: the column with the file.
        patient: the column with the patient's id.

    Raises:
        UsageError: there is no such table or column, or a file comes twice with two patients.
    """
    found: dict[str, str] = {}
    for batch in read_csv(table, columns=[file, patient]):
        for name in (file, patient):
            if name not in batch.schema.names:
                raise UsageError(f"the table '{table.name}' has no column '{name}'", "check 'file' and 'patient'")
        names, ids = (batch.column(name).to_pylist() for name in (file, patient))
        for name, id_ in zip(names, ids, strict=True):
            name, id_ = name.strip().removeprefix("./"), id_.strip()
            if found.setdefault(name, id_) != id_:
                raise UsageError(
                    f"the table '{table.name}' gives one picture to two patients", "give each picture one row"
                )
    return found


def inside(folder: Path, name: str) -> bool:
    """Whether ``name`` lies below ``folder``, links and dots resolved."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return False
