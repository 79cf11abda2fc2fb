"""What others signed and could not have signed honestly: a second roster of an epoch, two proposals for one attempt.

Bytes with their signatures, so that a site can show them to anybody. Rows are only ever added.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from sqlite3 import Connection

from wardround.client.store.database import explained


@dataclass(frozen=True, slots=True)
class Exhibit:
    """``kind`` says what it is ("roster", "request"), ``since`` when this site first held it (UTC)."""

    kind: str
    since: str
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()


class Evidence:
    """The exhibits of one site. ``store`` is from ``open_store``."""

    def __init__(self, store: Connection, site: str) -> None:
        self._store = store
        self._site = site

    def keep(self, kind: str, *contents: bytes) -> None:
        """Write each content once, durably, or with the transaction that is open."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with explained(f"the database of site '{self._site}'"):
            for content in contents:
                exhibit = Exhibit(kind, at, content)
                row = (self._site, exhibit.digest, kind, content, at)
                self._store.execute("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)", row)

    def all(self) -> tuple[Exhibit, ...]:
        """Every exhibit, the oldest first."""
        with explained(f"the database of site '{self._site}'"):
            rows = self._store.execute(
                "SELECT kind, since, content FROM evidence WHERE site = ? ORDER BY since, digest", (self._site,)
            ).fetchall()
        return tuple(Exhibit(kind, since, bytes(content)) for kind, since, content in rows)
