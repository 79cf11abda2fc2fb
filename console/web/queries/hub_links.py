"""Which sites' links are up now, as the SuperLink on this machine says; it is asked at most once in some seconds."""

import threading
import time
from typing import Final

from wardround.console.commands.coordinator import running
from wardround.protocol.errors import WardroundError
from wardround.server.folder import CoordinatorFolder

_SECONDS: Final = 5.0


class Links:
    """Call it: the numbers of the nodes that are online, or None where no coordinator runs."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._online: frozenset[int] | None = None

    def __call__(self) -> frozenset[int] | None:
        with self._lock:
            if time.monotonic() - self._asked > _SECONDS:
                self._online = self._ask() if running(self._folder) else None
                self._asked = time.monotonic()
            return self._online

    def _ask(self) -> frozenset[int] | None:
        from wardround.server.flower.control import SuperLinkControl

        try:
            control = SuperLinkControl(self._folder.runtime_port, self._folder.superexec_secret())
            try:
                return frozenset(node.node_id for node in control.nodes() if node.online)
            finally:
                control.close()
        except WardroundError:
            return None
