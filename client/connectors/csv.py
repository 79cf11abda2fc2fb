"""CSV: one row per record, a header line (or ``names`` for a file without one), any one-character delimiter."""

from csv import reader as csv_rows
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from wardround.protocol.errors import UsageError


def read_csv(path: Path, *, delimiter: str = ",", names: tuple[str, ...] = ()) -> pa.Table:
    """Every column as text: what is a number is the contract's decision, not a guess of the reader.

    Raises:
        UsageError: the file is missing, unreadable, empty, or its rows differ in their number of cells.
    """
    if len(delimiter) != 1:
        raise UsageError("a CSV delimiter is one character", "write delimiter: ',' or ';' or a tab")
    try:
        columns = tuple(names) or _header(path, delimiter)
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=columns, skip_rows=0 if names else 1),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False),
        )
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this site") from None
    except (pa.ArrowInvalid, UnicodeDecodeError):
        # Arrow's own message quotes the row, so it is not passed on.
        raise UsageError(
            f"'{path.name}' is not a CSV table: empty, or its rows differ in their number of cells",
            "check the delimiter, the quotes and the encoding (UTF-8)",
        ) from None
    except OSError as error:
        raise UsageError(f"'{path.name}' cannot be read: {error.strerror}", "check the file's permissions") from None


def _header(path: Path, delimiter: str) -> tuple[str, ...]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        cells = next(csv_rows(lines, delimiter=delimiter), [])
    if not cells:
        raise UsageError(f"'{path.name}' is empty", "the first line must name the columns")
    return tuple(cell.strip() for cell in cells)
