"""The coordinator's SQLite database: a write-ahead log, an fsync on every commit, and errors that people can read.

Many processes of one machine use it at once: each waits for the others, up to half a minute.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.protocol.errors import Unavailable, UsageError

VERSION: Final = 1
"""Of the schema, in SQLite's user_version."""

_WAIT_SECONDS: Final = 30.0
_SCHEMA: Final = Path(__file__).with_name("schema.sql")


def open_database(path: Path) -> Connection:
    """The database at ``path``, made if it is not there; each statement is a transaction unless one was begun.

    Raises:
        Unavailable: the file cannot be opened or written.
        UsageError: it is no coordinator's database, or a later version of this program made it.
    """
    with explained(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        store = sqlite3.connect(path, isolation_level=None, timeout=_WAIT_SECONDS)
        try:
            if _version(store) == 0:
                _create(store, path)
            if (version := _version(store)) != VERSION:
                raise UsageError(
                    f"'{path}' has version {version} of the schema, which this program does not know",
                    "a later version of this program made it: use that version",
                )
            store.execute("PRAGMA synchronous = FULL")
            store.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            store.close()
            raise
        return store


def read_database(path: Path) -> Connection:
    """The database at ``path`` for reading only; nothing is made. Raises as ``open_database`` does."""
    with explained(path):
        store = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_WAIT_SECONDS
        )
        try:
            if (version := _version(store)) != VERSION:
                raise UsageError(
                    f"'{path}' has version {version} of the schema, which this program does not know",
                    "use the version of this program that made it",
                )
        except BaseException:
            store.close()
            raise
        return store


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn what SQLite and the disk say into one of our errors."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(
            f"'{path}' cannot be used: {reason}",
            "nothing was changed. Free the disk or mend the file's permissions, then try again",
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"'{path}' cannot be read as a coordinator's database: {error}",
            "keep the file as it is, and restore the latest backup beside it",
        ) from error


@contextmanager
def transaction(store: Connection, path: Path | str) -> Iterator[None]:
    """All that the block writes, or nothing; nobody else writes meanwhile."""
    with explained(path):
        store.execute("BEGIN IMMEDIATE")
        try:
            yield
            store.execute("COMMIT")
        finally:
            if store.in_transaction:
                store.execute("ROLLBACK")


def _create(store: Connection, path: Path) -> None:
    """The tables, in one transaction: of two processes that make the file at once, the second finds them there."""
    if not _empty(store) and not _version(store):
        raise UsageError(
            f"'{path}' is no coordinator's database", "name the folder that 'wardround coordinator init' made"
        )
    write_ahead(store)
    with transaction(store, path):
        if _version(store):
            return
        for statement in _statements(_SCHEMA.read_text(encoding="utf-8")):
            store.execute(statement)
        store.execute(f"PRAGMA user_version = {VERSION}")


def _statements(script: str) -> Iterator[str]:
    """One statement after the other; ``executescript`` would commit before the first."""
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def write_ahead(store: Connection) -> None:
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


def _empty(store: Connection) -> bool:
    return not store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _version(store: Connection) -> int:
    return int(store.execute("PRAGMA user_version").fetchone()[0])
