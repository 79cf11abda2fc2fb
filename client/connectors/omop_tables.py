"""Tables of the OMOP Common Data Model as rows of text, whether they lie in CSV files or in a database."""

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from wardround.client.connectors.broken_off import BrokeOff
from wardround.client.connectors.parts import Part, parts, reading
from wardround.client.connectors.table import BATCH_ROWS
from wardround.protocol.errors import Unavailable, UsageError

MOST_IDS: Final = 20_000
"""More concepts than these are sifted here and not by the database."""


class Tables(Protocol):
    """The tables of one source."""

    def has(self, table: str) -> bool:
        """Whether the source has the table at all."""

    def rows(
        self, table: str, columns: Sequence[str], by: Sequence[str] = (), ids: Collection[str] | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Cells of ``columns`` as text, '' where there is none; nothing for a table that is not there.

        With ``ids`` only rows in which a column of ``by`` holds one of them; a source may give more.
        """


@contextmanager
def opened(path: Path, schema: str | None) -> Iterator[Tables]:
    """The tables behind ``path``: a database where it is a YAML file, else CSV files."""
    if path.suffix.lower() in (".yaml", ".yml"):
        from wardround.client.connectors.database import open_engine

        engine = open_engine(path)
        try:
            yield Database(engine, schema)
        finally:
            engine.dispose()
    else:
        yield Export(path)


class Export:
    """CSV files, one for each table, named like it in small or large letters; commas or tabs, UTF-8."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _kept_open(path) as found:
            self.names = {part.stem.lower() for part in found}

    def has(self, table: str) -> bool:
        return table in self.names

    def rows(
        self, table: str, columns: Sequence[str], by: Sequence[str] = (), ids: Collection[str] | None = None
    ) -> Iterator[tuple[str, ...]]:
        if table not in self.names:
            return
        with _kept_open(self.path) as found:
            for part in found:
                if part.stem.lower() == table:
                    yield from _cells(part, columns, by, ids)


@contextmanager
def _kept_open(path: Path) -> Iterator[Iterator[Part]]:
    found = parts(path, (".csv", ".tsv", ".txt"), "OMOP export")
    try:
        yield found
    finally:
        found.close()  # type: ignore[attr-defined]


def _cells(
    part: Part, columns: Sequence[str], by: Sequence[str], ids: Collection[str] | None
) -> Iterator[tuple[str, ...]]:
    with reading(part.name), part.open() as raw:
        try:
            lines = io.TextIOWrapper(raw, "utf-8-sig", newline="")
            first = lines.readline()
            mark = "\t" if first.count("\t") > first.count(",") else ","
            names = [name.strip().lower() for name in next(csv.reader([first], delimiter=mark), [])]
            places = [names.index(name) if name in names else None for name in columns]
            keys = [names.index(name) for name in by if name in names]
            for number, row in enumerate(csv.reader(lines, delimiter=mark), 2):
                if len(row) < len(names):
                    if not row:
                        continue
                    raise UsageError(f"'{part.name}' line {number} has too few cells", "export the table again")
                if ids is None or any(_plain(row[key]) in ids for key in keys):
                    yield tuple("" if place is None else _plain(row[place]) for place in places)
        except (UnicodeDecodeError, csv.Error):
            raise UsageError(f"'{part.name}' is no CSV file in UTF-8", "export the table again") from None


def _plain(cell: str) -> str:
    """Without spaces; a whole number that a tool wrote as 8507.0 is 8507."""
    cell = cell.strip()
    return cell[:-2] if cell.endswith(".0") and cell[:-2].isdigit() else "" if cell in ("NULL", "NA", "\\N") else cell


class Database:
    """Tables of a database, read through a cursor at the server and sifted there."""

    def __init__(self, engine: Any, schema: str | None) -> None:
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        from wardround.client.connectors.database import explained

        self.engine, self.schema = engine, schema
        try:
            with engine.connect() as connection:
                looking = inspect(connection)
                self.names = {name.lower(): name for name in looking.get_table_names(schema)}
                self.names |= {name.lower(): name for name in looking.get_view_names(schema)}
                self.columns = {
                    table: {
                        str(column["name"]).lower(): str(column["name"]) for column in looking.get_columns(name, schema)
                    }
                    for table, name in self.names.items()
                    if table in _READ
                }
        except DBAPIError as error:
            raise explained(error) from None

    def has(self, table: str) -> bool:
        return table in self.names

    def rows(
        self, table: str, columns: Sequence[str], by: Sequence[str] = (), ids: Collection[str] | None = None
    ) -> Iterator[tuple[str, ...]]:
        from sqlalchemy import column, literal_column, or_, select
        from sqlalchemy import table as named_table
        from sqlalchemy.exc import DBAPIError

        from wardround.client.connectors.database import STREAMED, explained

        if table not in self.names or (ids is not None and not ids):
            return
        known = self.columns[table]
        picked: list[Any] = [
            column(known[name]) if name in known else literal_column("NULL").label(name) for name in columns
        ]
        asked = select(*picked).select_from(named_table(self.names[table], schema=self.schema))
        if ids is not None and len(ids) <= MOST_IDS:
            numbers = sorted(int(id_) for id_ in ids)
            asked = asked.where(or_(*(column(known[name]).in_(numbers) for name in by if name in known)))
        try:
            with self.engine.connect() as connection:
                for part in connection.execute(asked, execution_options=STREAMED).partitions(BATCH_ROWS):
                    for row in part:
                        yield tuple(["" if cell is None else str(cell) for cell in row])
        except DBAPIError as error:
            fault = explained(error)
            if isinstance(fault, Unavailable):
                raise BrokeOff(
                    f"the database broke off in '{table}'; nothing of it is used", "run it again when it is back"
                ) from None
            raise fault from None


_READ: Final = frozenset(
    {
        "person", "care_site", "concept", "concept_ancestor", "condition_occurrence", "measurement", "drug_exposure",
        "visit_occurrence", "procedure_occurrence", "death",
    }
)  # fmt: skip
