"""That something of the coordinator's changed: its database, or a study's folder. What it is, a page reads itself.

While somebody listens, one thread looks once a second: SQLite's ``data_version`` says whether another process has
committed, and the times of a few files whether a study's process has written.
"""

import sqlite3
from contextlib import closing
from typing import Final

from wardround.console.web.listeners import HEARTBEAT_SECONDS, Listeners
from wardround.console.web.queries.hub_store import HubStore
from wardround.protocol.errors import WardroundError

EVERY_SECONDS: Final = 1.0


class HubLive(Listeners[int]):
    """Tells how often something has changed since it began to watch, from 1 on."""

    def __init__(self, store: HubStore, heartbeat: float = HEARTBEAT_SECONDS, every: float = EVERY_SECONDS) -> None:
        super().__init__(heartbeat)
        self._store = store
        self._every = every
        self._count = 0

    def _watch(self) -> None:
        while not self._nobody():
            try:
                with closing(self._store.watched()) as store:
                    self._look(store)
            except (WardroundError, sqlite3.Error):
                self._pause(self._every)

    def _look(self, store: sqlite3.Connection) -> None:
        before: object = None
        while not self._idle():
            now = store.execute("PRAGMA data_version").fetchone(), self._store.mark()
            if now != before:
                # It never begins anew: a listener that comes back may compare it with what it heard before.
                before, self._count = now, self._count + 1
                self._tell(self._count)
            self._pause(self._every)
