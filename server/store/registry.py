"""The coordinator's database as its processes use it: sites, the roster in force, studies and what people want of them.

Written by the command line, the door and the supervisor; read by every study's process. Each call is one transaction.
"""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.store.database import open_database

PROPOSED, RUNNING, STOPPED = "proposed", "running", "stopped"
OVER: Final = ("finished", "stopped", "needs_people")


@dataclass(frozen=True, slots=True)
class RegisteredSite:
    """A site that joined. ``node_id`` is None until the SuperLink knows it."""

    site: str
    identity_key: bytes
    node_key: str
    node_id: int | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study: ``wanted`` is what people want, ``state`` how its last process ended ("" while it may run)."""

    plan: StudyPlan
    state: str
    wanted: str
    created_at: str
    note: str


class Registry:
    """``path`` is the coordinator's database. Opens it for each call, so that any process and thread may use one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sites(self) -> list[RegisteredSite]:
        """Every site that ever joined, by name."""
        rows = self._all("SELECT site, identity_key, node_key, node_id, revoked_at FROM sites ORDER BY site")
        return [RegisteredSite(s, bytes(i), k, n, r is not None) for s, i, k, n, r in rows]

    def unregistered(self) -> list[RegisteredSite]:
        return [site for site in self.sites() if site.node_id is None and not site.revoked]

    def revoked_but_registered(self) -> list[RegisteredSite]:
        return [site for site in self.sites() if site.node_id is not None and site.revoked]

    def registered(self, site: str, node_id: int | None) -> None:
        """Note the number that the SuperLink gave a site's node; None: it was unregistered."""
        # SQLite's integers are signed, Flower's node ids are not.
        signed = None if node_id is None else node_id - (1 << 64 if node_id >= 1 << 63 else 0)
        self._write("UPDATE sites SET node_id = ? WHERE site = ?", (signed, site))

    def nodes(self) -> dict[str, int]:
        """Flower's node number by site, of the sites that may be talked to."""
        found = {site.site: site.node_id for site in self.sites() if not site.revoked}
        return {site: node % (1 << 64) for site, node in found.items() if node is not None}

    def roster(self) -> Roster | None:
        """The roster in force, or None."""
        rows = self._all("SELECT content FROM rosters WHERE in_force = 1 ORDER BY epoch DESC LIMIT 1")
        return Roster.parse(bytes(rows[0][0])) if rows else None

    def propose(self, plan: StudyPlan) -> None:
        """A new study, and the one that evaluates its model; the supervisor proposes them to their sites.

        The same plan again changes nothing.
        """
        for each in (plan, plan.evaluation_plan):
            if each is not None:
                row = (each.digest, each.study, each.canonical, "", PROPOSED, _now(), "")
                self._write("INSERT OR IGNORE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def studies(self) -> list[StudyRow]:
        """Every study, the newest first."""
        rows = self._all("SELECT plan, state, wanted, created_at, note FROM studies ORDER BY created_at DESC, digest")
        return [StudyRow(StudyPlan.parse(bytes(plan)), *rest) for plan, *rest in rows]

    def plans(self) -> list[StudyPlan]:
        return [row.plan for row in self.studies()]

    def open_studies(self) -> list[str]:
        """Digests of the studies that should have a process now."""
        rows = self._all("SELECT digest FROM studies WHERE state = '' AND wanted <> ? ORDER BY created_at", (STOPPED,))
        return [digest for (digest,) in rows]

    def wanted(self, digest: str) -> str:
        rows = self._all("SELECT wanted FROM studies WHERE digest = ?", (digest,))
        return str(rows[0][0]) if rows else STOPPED

    def want(self, digest: str, wanted: str) -> None:
        """Start, stop or resume a study, and with it the one that evaluates its model.

        Raises UsageError for one that is finished.
        """
        rows = {row.plan.digest: row for row in self.studies()}
        if digest not in rows:
            raise UsageError("there is no such study", "wardround study list names them")
        plan, beside = rows[digest].plan, rows[digest].plan.evaluation_plan
        if rows[digest].state == "finished":
            raise UsageError(f"the study '{plan.study}' is finished", "propose a new one")
        for each in (plan, beside):
            row = None if each is None else rows.get(each.digest)
            if row is not None and row.state != "finished":
                state = row.state if wanted == STOPPED else ""
                self._write(
                    "UPDATE studies SET wanted = ?, state = ?, note = '' WHERE digest = ?",
                    (wanted, state, row.plan.digest),
                )

    def took(self, digest: str, run_id: int, pid: int) -> None:
        """A process began to work on the study."""
        self._write("UPDATE studies SET note = ? WHERE digest = ?", (f"run {run_id}, process {pid}", digest))

    def ended(self, digest: str, state: str, note: str) -> None:
        """How a study's process ended: ``finished``, ``stopped`` or ``needs_people``."""
        self._write("UPDATE studies SET state = ?, note = ? WHERE digest = ?", (state, note, digest))

    def _all(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with closing(self._open()) as store:
            return store.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with closing(self._open()) as store:
            store.execute(statement, values)

    def _open(self) -> Connection:
        return open_database(self._path)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
