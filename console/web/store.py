"""``console.sqlite``: the console's own database, with accounts, sessions and read-marks. Nothing of a patient.

It lies in the site's or the coordinator's folder, readable by its user only. Losing it loses no approval: whoever runs
the command line makes the accounts anew.
"""

import os
import secrets
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, IntegrityError

from wardround.protocol.errors import Unavailable, UsageError

FILE: Final = "console.sqlite"
VERSION: Final = 2
"""Of the schema, in SQLite's user_version."""

_TABLES: Final = MetaData()

accounts: Final = Table(
    "accounts",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("password", String, nullable=False, doc="Argon2id, with salt and parameters"),
    Column("totp_secret", String, nullable=False, doc="base32"),
    Column("totp_step", Integer, nullable=False, default=0, doc="the last time step of which a code was taken"),
    Column("language", String, nullable=True),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Column("last_login", Float, nullable=True),
)
sessions: Final = Table(
    "sessions",
    _TABLES,
    Column("hash", String, primary_key=True, doc="SHA-256 of the cookie's value"),
    Column("account", String, nullable=False, index=True),
    Column("complete", Boolean, nullable=False, doc="whether the second factor was given too"),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)
failures: Final = Table(
    "failures",
    _TABLES,
    Column("name", String, primary_key=True, doc="SHA-256 of a name, whether or not such an account exists"),
    Column("count", Integer, nullable=False),
    Column("locked_until", Float, nullable=False),
    Column("at", Float, nullable=False),
)
history: Final = Table(
    "history",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("account", String, nullable=False, index=True, doc="empty for a name that is no account"),
    Column("at", Float, nullable=False),
    Column("what", String, nullable=False),
    Column("known", Boolean, nullable=False, doc="whether the account had logged in from this browser before"),
)
settings: Final = Table(
    "settings", _TABLES, Column("name", String, primary_key=True), Column("value", LargeBinary, nullable=False)
)


def open_console(folder: Path) -> Engine:
    """The console's database in ``folder``, made if it is not there.

    Raises:
        Unavailable: it cannot be opened or written.
        UsageError: it is no such database, or a later version of this program made it.
    """
    path = folder / FILE
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0, "isolation_level": None})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        with engine.begin() as store:
            version = store.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > VERSION:
                raise UsageError(
                    f"'{path}' has version {version} of the schema, which this program does not know",
                    "a later version of this program made it: use that version",
                )
            if version < VERSION:
                # Version 1 had no history; tables that are there already stay as they are.
                _TABLES.create_all(store)
                store.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        return engine
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be used: {error.strerror}", "check the disk and permissions") from error
    except DatabaseError as error:
        raise Unavailable(
            f"'{path}' cannot be used: {error.orig}",
            "check the disk and permissions; if the file is broken, move it away and make the accounts anew",
        ) from error


def secret(engine: Engine, name: str) -> bytes:
    """32 random bytes that this database keeps under ``name``, made when they are first asked for."""
    made = secrets.token_bytes(32)
    try:
        with engine.begin() as store:
            store.execute(insert(settings).values(name=name, value=made))
    except IntegrityError:
        with engine.begin() as store:
            return bytes(store.execute(select(settings.c.value).where(settings.c.name == name)).scalar_one())
    return made


def _prepare(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Any) -> None:
    # Whoever reads here may write next, so the write lock is taken at once: two logins never race for one code.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
