"""A site's SQLite database: opened, brought to the schema that this code knows, and turned into clear errors.

A file has a write-ahead log and an fsync on every commit; its schema is Alembic's. A simulation has one database in
memory with the same tables.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.client.store.migrations import HEAD, every_statement
from wardround.protocol.errors import Unavailable, UsageError

_WAIT_SECONDS: Final = 30.0
_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def open_store(path: Path | None, content: bytes | None = None) -> Connection:
    """The database at ``path``, made if it is not there, or one in memory (None).

    ``content`` fills a database in memory with what ``store_bytes`` gave: a simulation that is resumed.

    Raises:
        Unavailable: the file cannot be opened or written.
        UsageError: the file is no database of a site, or a later version of this program made it.
    """
    if path is None:
        store = sqlite3.connect(":memory:", isolation_level=None)
        if content is None:
            for statement in every_statement():
                store.execute(statement)
        else:
            store.deserialize(content)
        return store
    with explained(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        store = sqlite3.connect(path, isolation_level=None, timeout=_WAIT_SECONDS)
        _write_ahead(store)
        store.execute("PRAGMA synchronous = FULL")
        if (version := schema_version(store)) != HEAD:
            _upgrade(path, version)
        return store


def open_copy(path: Path) -> Connection:
    """The database at ``path`` for reading only, of whatever version; nothing beside it is needed or made.

    Raises:
        UsageError: there is no such file, or it is no SQLite database.
    """
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'", "name the site's ledger file, for example ledger.sqlite")
    log = path.with_name(path.name + "-wal")
    # Without a log the file is whole, and may lie on a medium where SQLite could not make its index of the log.
    mode = "mode=ro" if log.exists() else "immutable=1"
    with explained(path):
        store = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
        store.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return store


def store_bytes(store: Connection) -> bytes:
    """A database in memory as the bytes of an SQLite file."""
    return store.serialize()


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn what SQLite and the disk say into one of our errors."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(
            f"'{path}' cannot be used: {reason}",
            "nothing is trained or sent; what was charged before stays charged. Free the disk or mend the file's "
            "permissions, then try again",
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"'{path}' cannot be read as a ledger: {error}",
            "keep the file as it is, and restore the latest backup beside it",
        ) from error


def _write_ahead(store: Connection) -> None:
    """Give the file a write-ahead log. SQLite does not wait for others when it changes a file's journal: we do."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            store.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def schema_version(store: Connection) -> str | None:
    """The version of the schema that a database has; None: an empty one."""
    known = store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = store.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return None if row is None else str(row[0])


def _copy_before(path: Path) -> None:
    """What an upgrade begins from stays beside the file, once: ``ledger.sqlite.before-0002``.

    The copy gets its name when it is whole, and whoever upgrades at the same time leaves the first one alone: every
    upgrade comes after some copy, so the first copy comes before every upgrade.
    """
    kept = path.with_name(f"{path.name}.before-{HEAD}")
    if kept.exists():
        return
    with explained(kept), tempfile.TemporaryDirectory(prefix=".copy-", dir=path.parent) as place:
        made = Path(place) / path.name
        os.close(os.open(made, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as source, closing(sqlite3.connect(made)) as copy:
            source.backup(copy)
        with suppress(FileExistsError):
            os.link(made, kept)


def _upgrade(path: Path, version: str | None) -> None:
    """Bring the schema to HEAD in one transaction: other processes wait, and who is killed leaves nothing behind."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy import create_engine, event

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    if version is not None:
        _copy_before(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _WAIT_SECONDS, "isolation_level": None})
    # Python's driver would commit before each CREATE TABLE; so the transaction is begun here.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
    except CommandError as error:
        raise UsageError(
            f"'{path}' has version {version} of the schema, which this program does not know",
            "a later version of this program made it: use that version",
        ) from error
    finally:
        engine.dispose()
