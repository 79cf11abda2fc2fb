"""An Excel workbook (.xlsx, ECMA-376): one sheet, a row with the columns' names, one row per record; read row by row.

Formulas count as what Excel last computed for them. Numbers and dates come as text, dates as ISO 8601, so that the
contract decides what they are; a cell with an error such as #N/A is empty.
"""

from collections.abc import Collection, Iterator
from datetime import date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import pyarrow as pa

from wardround.client.connectors.table import BATCH_ROWS
from wardround.protocol.errors import UsageError

ERRORS: Final = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#GETTING_DATA"})


def read_excel(
    path: Path, *, columns: Collection[str] | None = None, sheet: str | None = None, header: int = 1
) -> Iterator[pa.RecordBatch]:
    """Rows below ``header`` (counted from 1) of ``sheet`` (its first one), every cell as text; empty rows are not rows.

    Raises:
        UsageError: the file is no workbook, has no such sheet or no header, or names a column twice.
    """
    if path.suffix.lower() == ".xls":
        raise UsageError(f"'{path.name}' is in Excel's format of before 2007", "save it as .xlsx, or as CSV")
    if header < 1:
        raise UsageError("the header of a sheet is in row 1 or below", "give header: 1")
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this source") from None
    except (InvalidFileException, BadZipFile, KeyError, ValueError, OSError):
        raise UsageError(f"'{path.name}' is not an Excel workbook, or not a whole one", "export it again") from None
    try:
        yield from _rows(book, path.name, sheet, header, columns)
    except (BadZipFile, KeyError, ValueError, SyntaxError):
        raise UsageError(f"'{path.name}' cannot be read to its end", "open it in Excel and save it again") from None
    finally:
        book.close()


def _rows(
    book: Any, name: str, sheet: str | None, header: int, columns: Collection[str] | None
) -> Iterator[pa.RecordBatch]:
    if sheet is not None and sheet not in book.sheetnames:
        raise UsageError(f"'{name}' has no sheet '{sheet}'", f"it has {', '.join(book.sheetnames)}")
    rows = book[sheet or book.sheetnames[0]].iter_rows(min_row=header, values_only=True)
    names = ["" if cell is None else str(cell).strip() for cell in next(rows, ())]
    found = [name for name in names if name]
    if not found:
        raise UsageError(f"'{name}' has no names of columns in row {header}", "say which row has them: header: 2")
    if len(set(found)) < len(found):
        twice = next(each for each in found if found.count(each) > 1)
        raise UsageError(f"'{name}' has two columns '{twice}'", "rename one of them in the sheet")
    kept = [place for place, each in enumerate(names) if each and (columns is None or each in columns)]
    held: list[tuple[Any, ...]] = []
    yield _batch(held, names, kept)
    for row in rows:
        if any(cell is not None for cell in row):
            held.append(row)
        if len(held) == BATCH_ROWS:
            yield _batch(held, names, kept)
            held = []
    yield _batch(held, names, kept)


def _batch(rows: list[tuple[Any, ...]], names: list[str], kept: list[int]) -> pa.RecordBatch:
    cells = [pa.array([_cell(row[place]) if place < len(row) else None for row in rows], pa.string()) for place in kept]
    return pa.RecordBatch.from_arrays(cells, [names[place] for place in kept])


def _cell(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return str(int(value))
        case float():
            # Excel holds whole numbers as floats: 3.0 is a 3 to whoever typed it.
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
        case datetime():
            midnight = value.time() == time_of_day(0)
            return value.date().isoformat() if midnight else value.isoformat()
        case date():
            return value.isoformat()
    said = str(value)
    return None if said in ERRORS else said
