"""The sources that site.yaml names: can the data be opened, and are the opt-outs understood?

Nothing that is read is kept, and what the operating system or a parser says about a file is not passed on: it may hold
a name or a value.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from csv import Error as CsvError
from csv import reader as csv_rows
from datetime import UTC, datetime
from typing import Final

from wardround.client.connectors import nifti, png, read_batches
from wardround.client.connectors.parts import files_below, parts
from wardround.client.doctor.examined import Examined, TableAt
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.protocol.errors import Unavailable, WardroundError


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
    if source.connector not in HEADS:
        raise _Unreadable("names a connector that does not exist", f"Write one of these: {', '.join(sorted(HEADS))}.")
    try:
        HEADS[source.connector](source)
    except FileNotFoundError:
        raise _Unreadable("is not there", "Correct 'path' in site.yaml, or run the export.") from None
    except PermissionError:
        raise _Unreadable("is closed to this user", "Give the daemon's user the right to read it.") from None
    except OSError:
        raise _Unreadable("cannot be read", "Check the path in site.yaml, and the disk or share it lies on.") from None


def _csv_head(source: TableAt) -> None:
    delimiter = source.options.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise _Unreadable("has a delimiter of more than one character", "Write delimiter as one character.")
    encoding = str(source.options.get("encoding", "UTF-8"))
    try:
        with source.path.open(encoding="utf-8-sig" if encoding.lower() == "utf-8" else encoding, newline="") as lines:
            cells = next(csv_rows([lines.readline(2**20)], delimiter=delimiter), [])
    except (LookupError, UnicodeError, CsvError):
        raise _Unreadable(
            f"is no text in {encoding}, or no CSV", "Set 'encoding' in its options, or export it as CSV in UTF-8."
        ) from None
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


def _first_batch(source: TableAt) -> None:
    """The first rows, as a study would take them: a workbook's header, a database's answer."""
    try:
        next(read_batches(source.connector, source.path, source.options), None)
    except Unavailable:
        raise _Unreadable("does not answer", "Check host, port and firewall, and that the system runs.") from None
    except WardroundError as error:
        # Words of ours, which name files and settings and quote no cell.
        raise _Unreadable(f"cannot be read: {error.message}", f"{error.hint[0].upper()}{error.hint[1:]}.") from None


def _first_file(source: TableAt) -> None:
    """The first file of an export begins as such files do; reading it whole is the study's work."""
    if source.connector == "omop" and source.path.suffix.lower() in (".yaml", ".yml"):
        _first_table(source)
        return
    endings, begins = BEGINNINGS[source.connector]
    try:
        first = next(parts(source.path, endings, "export"))
        with first.open() as stream:
            head = stream.read(4096)
    except WardroundError as error:
        raise _Unreadable(
            f"cannot be read: {error.message}", "Check its path in site.yaml, or export it again."
        ) from None
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\x0b \r\n\t").startswith(begins):
        raise _Unreadable("is not what its connector reads", "Check 'connector' and 'path' in site.yaml.")


def _first_table(source: TableAt) -> None:
    from wardround.client.connectors.omop_tables import opened

    try:
        with opened(source.path, source.options.get("schema")) as tables:
            if not tables.has("person"):
                raise _Unreadable("has no table 'person'", "Give 'schema' in its options.")
    except Unavailable:
        raise _Unreadable("does not answer", "Check host, port and firewall, and that the system runs.") from None
    except WardroundError as error:
        raise _Unreadable(f"cannot be read: {error.message}", f"{error.hint[0].upper()}{error.hint[1:]}.") from None


def _folder(source: TableAt) -> None:
    """A folder of pictures with a file in it; pictures themselves are not opened."""
    if not source.path.is_dir():
        raise _Unreadable("is no folder", "Correct 'path' in site.yaml.")
    if next(files_below(source.path), None) is None:
        raise _Unreadable("is an empty folder", "Correct 'path' in site.yaml, or run the export.")


def _with_files(*endings: str) -> Callable[[TableAt], None]:
    """A folder with a file that ends so."""

    def head(source: TableAt) -> None:
        _folder(source)
        if not any(file.name.lower().endswith(endings) for file in files_below(source.path)):
            raise _Unreadable(f"holds no file that ends with {' or '.join(endings)}", "Check 'connector' and 'path'.")

    return head


def _archive(source: TableAt) -> None:
    """The archive lets this user in and answers a search."""
    from wardround.client.connectors.archive import Archive

    try:
        with closing(Archive(source.path, tries=1)) as archive:
            next(archive.studies(source.options.get("search") or {}), None)
    except Unavailable:
        raise _Unreadable("does not answer", "Check host, port and firewall, and that the system runs.") from None
    except WardroundError as error:
        raise _Unreadable(f"cannot be read: {error.message}", f"{error.hint[0].upper()}{error.hint[1:]}.") from None


BEGINNINGS: Final[dict[str, tuple[tuple[str, ...], tuple[bytes, ...]]]] = {
    "fhir": ((".ndjson", ".json"), (b"{",)),
    "hl7v2": ((".hl7", ".txt", ".dat", ".msg"), (b"MSH", b"FHS", b"BHS")),
    "omop": ((".csv", ".tsv", ".txt"), (b"",)),
}
"""Endings of an export's files, and how the first one begins."""

HEADS: Final[dict[str, Callable[[TableAt], None]]] = {
    "csv": _csv_head,
    "dicom": _folder,
    "dicomweb": _archive,
    "excel": _first_batch,
    "fhir": _first_file,
    "hl7v2": _first_file,
    "nifti": _with_files(*nifti.ENDINGS),
    "omop": _first_file,
    "parquet": _parquet_head,
    "png": _with_files(*png.ENDINGS),
    "sql": _first_batch,
}
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
