"""CSV: one row per record, a header line (or ``names`` for a file without one), any one-character delimiter."""

from codecs import lookup
from collections.abc import Collection, Iterator, Sequence
from csv import Error as CsvError
from csv import reader as csv_rows
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import csv

from wardround.protocol.errors import UsageError

BLOCK: Final = 4 << 20
"""Bytes that are read at once. A row lies within one block."""

LONGEST_HEADER: Final = 1 << 20


_NOT_TEXT: Final = frozenset(
    {"idna", "punycode", "undefined", "unicode_escape", "raw-unicode-escape", "unicode-escape"}
)
"""Codecs of Python that are for names or source code; they cannot decode a file in pieces."""


def read_csv(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    delimiter: str = ",",
    names: Sequence[str] = (),
    encoding: str = "utf-8",
) -> Iterator[pa.RecordBatch]:
    """Every column as text: what is a number is the contract's decision, not a guess of the reader.

    Args:
        names: the columns of a file without a header line.
        encoding: of the whole file, by the name that Python's codecs give it: utf-8, cp1252, latin-1, utf-16.

    Raises:
        UsageError: the file is missing, unreadable, empty, in another encoding, or its rows differ in their number of
            cells.
    """
    try:
        codec = lookup(encoding).name
        # A codec that is not for text refuses a letter, but not an empty text.
        if codec in _NOT_TEXT or not "x".encode(codec):
            raise LookupError
    except (LookupError, ValueError):
        raise UsageError(f"there is no encoding '{encoding}'", "write utf-8, cp1252, latin-1 or utf-16") from None
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise UsageError("a CSV delimiter is one character of ASCII", "write delimiter: ',' or ';' or a tab")
    try:
        found = tuple(names) or _header(path, delimiter, codec)
        wanted = [name for name in found if columns is None or name in columns]
        types = dict.fromkeys(found, pa.string())
        yield pa.RecordBatch.from_pylist([], pa.schema([(name, pa.string()) for name in wanted]))
        with csv.open_csv(
            path,
            csv.ReadOptions(
                column_names=found, skip_rows=0 if names else 1, block_size=BLOCK, use_threads=False, encoding=codec
            ),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=types, strings_can_be_null=False, include_columns=wanted),
        ) as batches:
            yield from batches
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this site") from None
    except (pa.ArrowInvalid, UnicodeError, CsvError):
        # Arrow's own message quotes the row, so it is not passed on.
        raise UsageError(
            f"'{path.name}' is not a CSV table: empty, or its rows differ in their number of cells",
            f"check the delimiter, the quotes and the encoding (it is read as {encoding}; set 'encoding' for another)",
        ) from None
    except OSError as error:
        raise UsageError(f"'{path.name}' cannot be read: {error.strerror}", "check the file's permissions") from None


def _header(path: Path, delimiter: str, codec: str) -> tuple[str, ...]:
    with path.open(encoding="utf-8-sig" if codec == "utf-8" else codec, newline="") as lines:
        first = lines.readline(LONGEST_HEADER)
    if len(first) == LONGEST_HEADER:
        raise UsageError(
            f"the first line of '{path.name}' is longer than {LONGEST_HEADER:,} characters",
            "check the line ends of the export: one row is one line",
        )
    cells = next(csv_rows([first], delimiter=delimiter), [])
    if not cells:
        raise UsageError(f"'{path.name}' is empty", "the first line must name the columns")
    return tuple(cell.strip() for cell in cells)
