"""A PostgreSQL server of one's own: started on loopback as an ordinary user, stopped and deleted after.

The tests start it as the benchmarks do.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _ports import free_port
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

PASSWORD = "only:read@me/ö"


@dataclass(frozen=True)
class Postgres:
    """A running server; ``admin`` may do everything, the role ``reader`` may read the schema public."""

    port: int
    programs: Path

    def admin(self, database: str = "postgres") -> Engine:
        return create_engine(
            f"postgresql+psycopg://postgres:admin@127.0.0.1:{self.port}/{database}", poolclass=NullPool
        )

    def script(self, file: Path) -> None:
        """Run a script of psql as the administrator, in the script's folder."""
        subprocess.run(
            [shutil.which("psql") or self.programs / "psql",
             "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
             "-U", "postgres", "-f", file.name],
            check=True, cwd=file.parent, env=os.environ | {"PGPASSWORD": "admin"},
        )  # fmt: skip

    def source(self, folder: Path, **changes: object) -> Path:
        """A connection file for the role that reads, and its password's."""
        secret = folder / "reader.password"
        secret.write_text(str(changes.pop("password", PASSWORD)) + "\n")
        secret.chmod(0o600)
        values = {"url": f"postgresql+psycopg://reader@127.0.0.1:{self.port}/postgres", "password_file": secret.name}
        path = folder / "database.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in (values | changes).items()))
        return path


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps outside the search path; None: not installed."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


@contextmanager
def running() -> Iterator[Postgres]:
    """PostgreSQL refuses to run as root, so for root it runs as its own user."""
    at = programs()
    assert at is not None, "PostgreSQL is not installed"
    folder = Path(tempfile.mkdtemp(prefix="wardround-postgres-"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "cwd": folder}
    (folder / "pw").write_text("admin\n")
    (folder / "pw").chmod(0o644)
    made = ["-U", "postgres", "--auth=scram-sha-256", f"--pwfile={folder / 'pw'}", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([at / "initdb", "-D", folder / "data", *made], check=True, capture_output=True, **as_user)
    port = free_port()
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off", "-c", "logging_collector=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([at / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, **as_user)
    try:
        found, until = Postgres(port, at), time.monotonic() + 60
        while True:
            # A port that is open is not enough: while the server starts it answers everybody with an error.
            with suppress(OperationalError), found.admin().connect():
                break
            assert time.monotonic() < until and server.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        with found.admin().connect() as connection:
            connection.execute(text(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'"))
            connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
            connection.execute(text("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader"))
            connection.commit()
        yield found
    finally:
        # Fast shutdown: it does not wait for those who are still connected.
        server.send_signal(signal.SIGINT)
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
