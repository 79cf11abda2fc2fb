"""The sums that this site has helped to open, kept for ever: over the same inputs it never opens another one.

They outlive sessions, rosters and restarts, because two sums over the same inputs and different sites differ by single
inputs. A record is on disk before the opening leaves.
"""

import json
from sqlite3 import Connection

from wardround.client.store.database import explained
from wardround.privacy.secagg.client import Opened


class OpenedSums:
    """``store`` is from ``open_store``."""

    def __init__(self, store: Connection, site: str) -> None:
        self._store = store
        self._site = site

    def all(self) -> tuple[Opened, ...]:
        """Every record of this site."""
        with explained(f"the database of site '{self._site}'"):
            rows = self._store.execute("SELECT inputs, survivors FROM opened WHERE site = ?", (self._site,)).fetchall()
        return tuple(Opened(inputs, tuple(json.loads(survivors))) for inputs, survivors in rows)

    def keep(self, record: Opened) -> None:
        """Write ``record``, durably; writing it again changes nothing.

        Raises:
            Unavailable: it could not be written, and the opening must not leave.
        """
        row = (self._site, record.inputs, json.dumps(record.survivors))
        with explained(f"the database of site '{self._site}'"):
            self._store.execute("INSERT OR IGNORE INTO opened VALUES (?, ?, ?)", row)
