"""The sources that site.yaml names: can the data be opened, and are the opt-outs understood?

Nothing that is read is kept, and what the operating system or a parser says about a file is not passed on: it may hold
a name or a value.
"""

from collections.abc import Callable, Iterator
from csv import Error as CsvError
from csv import reader as csv_rows
from datetime import UTC, datetime
from typing import Final

from wardround.client.connectors import CONNECTORS
from wardround.client.doctor.examined import Examined, TableAt
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.protocol.errors import WardroundError


class _Unreadable(Exception):
    """A source cannot be read; the text names no file and no value."""


def check_data(examined: Examined) -> Iterator[Finding]:
    """Every source of site.yaml can be opened, and its head read."""
    if examined.data is None:
        return
    if not examined.data:
        yield warning("data", "site.yaml names no data.", "Write 'data' into site.yaml before the first study.")
        return
    whole = True
    for number, source in enumerate(examined.data, 1):
        try:
            _read_head(source)
        except _Unreadable as error:
            whole = False
            yield failed("data", f"Data source {number} of site.yaml {error.args[0]}.", error.args[1])
    if whole:
        yield ok("data", "Every data source can be opened.")


def _read_head(source: TableAt) -> None:
    if source.connector not in CONNECTORS:
        raise _Unreadable(
            "names a connector that does not exist", f"Write one of these: {', '.join(sorted(CONNECTORS))}."
        )
    try:
        HEADS.get(source.connector, _first_byte)(source)
    except FileNotFoundError:
        raise _Unreadable("is not there", "Correct 'path' in site.yaml, or run the export.") from None
    except PermissionError:
        raise _Unreadable("is closed to this user", "Give the daemon's user the right to read it.") from None
    except OSError:
        raise _Unreadable("cannot be read", "Check the path in site.yaml, and the disk or share it lies on.") from None


def _first_byte(source: TableAt) -> None:
    with source.path.open("rb") as file:
        file.read(1)


def _csv_head(source: TableAt) -> None:
    delimiter = source.options.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise _Unreadable("has a delimiter of more than one character", "Write delimiter as one character.")
    try:
        with source.path.open(encoding="utf-8-sig", newline="") as lines:
            cells = next(csv_rows([lines.readline(2**20)], delimiter=delimiter), [])
    except (UnicodeDecodeError, CsvError):
        raise _Unreadable("is no text in UTF-8, or no CSV", "Export it as CSV in UTF-8.") from None
    if not any(cells):
        raise _Unreadable("is empty, or its first line is", "Run the export again.")
    if len(cells) == 1 and any(mark in cells[0] for mark in ",;\t|"):
        raise _Unreadable("has its columns separated by another character", "Set 'delimiter' in its options.")


def _parquet_head(source: TableAt) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with source.path.open("rb") as file:
            parquet.read_schema(file)
    except pa.ArrowException:
        raise _Unreadable("is no Parquet file", "Check 'connector' in site.yaml, or run the export again.") from None


HEADS: Final[dict[str, Callable[[TableAt], None]]] = {"csv": _csv_head, "parquet": _parquet_head}
"""Connector -> how the head of its file is read. Each raises OSError or _Unreadable."""


def check_opt_outs(examined: Examined) -> Iterator[Finding]:
    """Every source of opt-outs is understood, as before a round: what it says is not kept."""
    if examined.opt_outs is None:
        return
    if not examined.opt_outs:
        yield warning(
            "opt-outs",
            "site.yaml names no source of opt-outs.",
            "Write 'opt_outs' into site.yaml, or nobody can opt out.",
        )
        return
    whole = True
    for number, (path, source) in enumerate(examined.opt_outs, 1):
        what = f"Opt-out source {number} of site.yaml"
        try:
            with path.open("rb") as file:
                file.read(1)
            source.opted_out(datetime.now(UTC))
        except OSError:
            whole = False
            yield failed(
                "opt-outs",
                f"{what} cannot be read, so no round is answered.",
                "Correct its path in site.yaml, or give the daemon's user the right to read it.",
            )
        except WardroundError:
            # The reason may name a row, and so say how many patients there are.
            whole = False
            yield failed(
                "opt-outs",
                f"{what} is not understood, so no round is answered.",
                "Check its kind and columns in site.yaml, and that the export is whole; the daemon's log says more.",
            )
    if whole:
        yield ok("opt-outs", "Every source of opt-outs is understood.")
