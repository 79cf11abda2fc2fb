"""The plans that were proposed to this site, byte for byte as they came. Whether one is approved is in the ledger."""

from dataclasses import dataclass
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Final

from pydantic import ValidationError

from wardround.client.store.database import explained
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan

MOST_PROPOSED: Final = 200
"""Plans that a site keeps; a coordinator can fill no disk with proposals."""

MOST_BYTES: Final = 1 << 20
"""Of one plan; a plan of a hundred hospitals has some fifty thousand."""


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A plan as it was proposed; ``refused`` is an officer's reason, or None."""

    plan: StudyPlan
    received_at: str
    refused: str | None

    @property
    def digest(self) -> str:
        return self.plan.digest


class Studies:
    """The proposed plans of one site. ``store`` is from ``open_store``."""

    def __init__(self, store: Connection) -> None:
        self._store = store

    def add(self, content: bytes) -> StoredStudy:
        """Keep a plan that the coordinator proposes; the same plan again changes nothing.

        Raises:
            ProtocolViolation: the bytes are no plan in canonical form, or too many, or too many plans were proposed.
        """
        if len(content) > MOST_BYTES:
            raise ProtocolViolation(COORDINATOR, f"it proposes a plan of more than {MOST_BYTES >> 20} MiB")
        try:
            plan = StudyPlan.parse(content)
        except (ValidationError, UsageError):
            raise ProtocolViolation(COORDINATOR, "it proposes bytes that are no plan of this version") from None
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with explained("the site's list of studies"):
            (held,) = self._store.execute("SELECT count(*) FROM studies WHERE digest <> ?", (plan.digest,)).fetchone()
            if held >= MOST_PROPOSED:
                raise ProtocolViolation(COORDINATOR, f"it has proposed more than {MOST_PROPOSED} plans")
            row = (plan.digest, content, at)
            self._store.execute("INSERT OR IGNORE INTO studies VALUES (?, ?, ?, NULL)", row)
        found = self.get(plan.digest)
        assert found is not None
        return found

    def get(self, digest: str) -> StoredStudy | None:
        """The plan of this digest, or None."""
        with explained("the site's list of studies"):
            row = self._store.execute(
                "SELECT content, received_at, refused FROM studies WHERE digest = ?", (digest,)
            ).fetchone()
        return None if row is None else StoredStudy(StudyPlan.parse(bytes(row[0])), row[1], row[2])

    def all(self) -> tuple[StoredStudy, ...]:
        """Every plan, the newest first."""
        with explained("the site's list of studies"):
            rows = self._store.execute(
                "SELECT content, received_at, refused FROM studies ORDER BY received_at DESC, digest"
            ).fetchall()
        return tuple(StoredStudy(StudyPlan.parse(bytes(content)), at, refused) for content, at, refused in rows)

    def named(self, wanted: str) -> StoredStudy:
        """The newest plan of a study's name, or the one whose digest begins so (six characters or more).

        Raises:
            UsageError: no such plan was proposed to this site.
        """
        held = self.all()
        for study in held:
            if study.plan.study == wanted or (len(wanted) >= 6 and study.digest.startswith(wanted)):
                return study
        known = ", ".join(f"{study.plan.study} ({study.digest[:12]})" for study in held) or "none"
        raise UsageError(f"no study '{wanted}' was proposed to this site", f"known here: {known}")

    def refuse(self, digest: str, reason: str | None) -> None:
        """Note an officer's refusal; None takes it back."""
        with explained("the site's list of studies"):
            self._store.execute("UPDATE studies SET refused = ? WHERE digest = ?", (reason, digest))
