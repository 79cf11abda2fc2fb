"""What a site has heard of ledgers, on disk: the memory of ``protocol.watch``."""

from datetime import UTC, datetime
from sqlite3 import Connection

from wardround.client.store.database import explained


class Watched:
    """``store`` is from ``open_store``. ``since`` of a row is when its key was first written (UTC)."""

    def __init__(self, store: Connection, site: str) -> None:
        self._store = store
        self._where = f"the database of site '{site}'"

    def get(self, kind: str, key: str) -> bytes | None:
        with explained(self._where):
            row = self._store.execute("SELECT content FROM watched WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Durable when this returns."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with explained(self._where):
            self._store.execute(
                "INSERT INTO watched VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET content = excluded.content",
                (kind, key, content, at),
            )

    def drop(self, kind: str, key: str) -> None:
        with explained(self._where):
            self._store.execute("DELETE FROM watched WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str, under: str = "") -> list[tuple[str, bytes]]:
        with explained(self._where):
            rows = self._store.execute(
                "SELECT key, content FROM watched WHERE kind = ? AND key >= ? AND key < ? ORDER BY key",
                (kind, under, under + "\x7f"),
            )
            return [(key, bytes(content)) for key, content in rows]
