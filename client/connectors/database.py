"""Reading from a database and nothing else: the connection that a YAML file describes, its rows, and its refusals.

The transaction is read-only by order to the server (SQLite: by its open mode), a statement ends after its time, and
rows come through a cursor at the server, some thousand at a time. What was read in part is never used: a database that
breaks off is asked anew for all of it (``broken_off``); if it stays away the site's cache stays as it was.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy import column as named_column
from sqlalchemy import table as named_table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from wardround.client.connectors.broken_off import BrokeOff
from wardround.client.connectors.secret_file import read_secret
from wardround.client.connectors.table import BATCH_ROWS
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import Unavailable, UsageError, WardroundError

TRIES: Final = 3
"""Times that a connection is tried that gave no row yet; later ones wait longer."""

STREAMED: Final = {"stream_results": True, "yield_per": BATCH_ROWS}
"""Rows through a cursor at the server, so many with each question; left alone SQLAlchemy begins with five."""

_SAID: Final = {
    "28P01": ("the database refuses the user or the password", "check 'url' and 'password_file'"),
    "28000": ("the database refuses the user", "ask its administrator for a role that may log in from here"),
    "3D000": ("there is no such database on the server", "check the end of 'url'"),
    "42P01": ("the database has no such table", "check 'table' or the query in site.yaml"),
    "42703": ("the database has no such column", "check the query in site.yaml"),
    "42501": ("the database's role may not read this", "ask its administrator for SELECT on these tables"),
    "42601": ("the database does not understand the query", "try the query in the database's own client"),
    "57014": ("the query took longer than its time", "raise timeout_seconds, or ask for less"),
    "25006": ("the query would write, and sites only read", "give a query that reads"),
}
"""What a SQLSTATE means to the people of a site (PostgreSQL, appendix A)."""


class Connection(BaseModel):
    """The YAML file of a database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    password_file: str | None = None
    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400)


def rows_of(
    path: Path, table: str | None, query: str | None, columns: Collection[str] | None
) -> Iterator[pa.RecordBatch]:
    """What ``read_sql`` gives, from the database that ``path`` describes."""
    engine = open_engine(path)
    try:
        yield from _rows(engine, table, query, columns)
    finally:
        engine.dispose()


def open_engine(path: Path) -> Engine:
    """The database that the YAML file describes, for reading only. Raises UsageError for what is wrong in the file."""
    try:
        about = Connection.model_validate(load_yaml(path.read_text(encoding="utf-8")))
        url = make_url(about.url)
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this source") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValidationError, ArgumentError):
        raise UsageError(
            f"'{path.name}' does not describe a database", "it holds url, and may hold password_file, timeout_seconds"
        ) from None
    if url.password:
        raise UsageError(f"'{path.name}' has a password in its url", "write it to a file and name it in password_file")
    if about.password_file is not None:
        url = url.set(password=read_secret(path.parent / about.password_file, "password", "password_file"))
    try:
        return _engine(url, path.parent, about.timeout_seconds)
    except (NoSuchModuleError, ModuleNotFoundError):
        raise UsageError(
            f"'{path.name}' names a kind of database that is not installed",
            "postgresql+psycopg and sqlite are; others need their driver",
        ) from None


def _engine(url: URL, beside: Path, seconds: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        file = (beside / (url.database or "")).absolute()
        if not file.is_file():
            raise UsageError(f"no file '{file.name}' for this SQLite database", "check 'url'; it is never made anew")
        quoted = str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return create_engine(f"sqlite:///file:{quoted}?mode=ro&uri=true", poolclass=NullPool)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        limit = f"-c default_transaction_read_only=on -c statement_timeout={round(seconds * 1000)}"
        arguments = {"connect_timeout": 10, "options": limit}
    return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)


def _rows(
    engine: Engine, table: str | None, query: str | None, columns: Collection[str] | None
) -> Iterator[pa.RecordBatch]:
    given, tried = 0, 0
    while True:
        try:
            for batch in _once(engine, table, query, columns):
                if batch.num_rows or not tried:
                    yield batch
                given += batch.num_rows
            return
        except DBAPIError as error:
            fault = explained(error)
            tried += 1
            if given or tried == TRIES or isinstance(fault, UsageError):
                raise (_broken(given) if given and isinstance(fault, Unavailable) else fault) from None
            time.sleep(0.5 * 2**tried)
        except NoSuchTableError:
            raise UsageError(*_SAID["42P01"]) from None
        except SQLAlchemyError as error:
            raise UsageError(
                f"the database source cannot be read ({type(error).__name__})", "check 'url' and the options"
            ) from None


def _once(
    engine: Engine, table: str | None, query: str | None, columns: Collection[str] | None
) -> Iterator[pa.RecordBatch]:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA query_only = ON"))
        if table is not None:
            schema, _, name = table.rpartition(".")
            known = [str(each["name"]) for each in inspect(connection).get_columns(name, schema or None)]
            wanted = [each for each in known if columns is None or each in columns]
            asked: Any = select(*map(named_column, wanted)).select_from(named_table(name, schema=schema or None))
            statement: Any = asked if wanted else text("SELECT 1 WHERE 1 = 0")
        else:
            statement, wanted = text(query or ""), []
        result = connection.execute(statement, execution_options=STREAMED)
        names = list(result.keys()) if query is not None else wanted
        kept = [place for place, name in enumerate(names) if columns is None or name in columns]
        yield _batch([], names, kept)
        for part in result.partitions(BATCH_ROWS):
            yield _batch(part, names, kept)


def _batch(rows: Sequence[Any], names: list[str], kept: list[int]) -> pa.RecordBatch:
    cells = [pa.array([_cell(row[place], names[place]) for row in rows], pa.string()) for place in kept]
    return pa.RecordBatch.from_arrays(cells, [names[place] for place in kept])


def _cell(value: Any, name: str) -> str | None:
    """A cell as text: numbers so that they come back unchanged, times as ISO 8601, truth as 1 and 0."""
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return str(int(value))
        case int() | Decimal():
            return str(value)
        case float():
            return repr(value)
        case datetime() | date():
            return value.isoformat()
    raise UsageError(
        f"column '{name}' of the database holds what is neither text, number nor time", "leave it out, or cast it"
    )


def explained(error: DBAPIError) -> WardroundError:
    """What a driver's error means, without its text, which quotes the statement and its values."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state in _SAID:
        return UsageError(*_SAID[state])
    if type(error.orig).__module__.startswith("sqlite3"):
        said = str(error.orig)
        for words, of in (("no such table", "42P01"), ("no such column", "42703"), ("readonly", "25006")):
            if words in said:
                return UsageError(*_SAID[of])
        if "syntax error" in said or "incomplete input" in said:
            return UsageError(*_SAID["42601"])
        return UsageError("the SQLite file cannot be read", "check that it is a database and not locked")
    if not state:
        # A connection that fails has no SQLSTATE in psycopg, only the server's own words.
        said = str(error.orig)
        for words, of in (("password authentication failed", "28P01"), ("database", "3D000")):
            if words in said and (of == "28P01" or "does not exist" in said):
                return UsageError(*_SAID[of])
    if state and not state.startswith(("08", "53", "57", "58")):
        return UsageError(f"the database refuses the query (SQLSTATE {state})", "try it in the database's own client")
    return Unavailable("the database cannot be reached", "check host, port and firewall; its log says more")


def _broken(rows: int) -> BrokeOff:
    return BrokeOff(
        f"the database broke off after {rows:,} rows; none of them is used", "run it again when the database is back"
    )
