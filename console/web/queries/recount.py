"""The check of a whole ledger that a person starts on a page: one run at a time, in another process, and not too often.

It is what ``wardround ledger verify`` does, with the site's own key and the heads that others hold.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from wardround.console.web.apart import Apart
from wardround.protocol.errors import WardroundError

MOST_SECONDS: Final = 3_600.0
"""A busy machine is no reason to break a check off."""

PAUSE_SECONDS: Final = 30.0
"""Between the end of a run and the beginning of the next."""


@dataclass(frozen=True, slots=True)
class Holds:
    """How much was looked at, and found right."""

    entries: int
    root: str
    signatures: int
    approvals: int
    checkpoints: int
    countersignatures: int
    countersigned_by: tuple[str, ...]
    recoveries: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands. ``state``: none, running, holds, broken or failed.

    ``number`` and ``reason``: of the entry that does not hold. ``reason`` and ``hint``: why no answer was found.
    """

    state: str = "none"
    so_far: int = 0
    entries: int = 0
    began_at: str = ""
    ended_at: str = ""
    holds: Holds | None = None
    number: int = 0
    reason: str = ""
    hint: str = ""


class Recount:
    """The runs of one site's folder."""

    def __init__(self, folder: Path, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._apart = Apart(MOST_SECONDS)
        self._run = Run()
        self._free_at = 0.0

    @property
    def run(self) -> Run:
        """The run that goes on, or the last one."""
        return self._run

    @property
    def wait(self) -> int:
        """Seconds until a run may begin; 0: now."""
        return max(0, int(-(-(self._free_at - self._clock()) // 1)))

    def start(self) -> bool:
        """Begin a run. False: one goes on, or the last one ended a moment ago."""
        with self._lock:
            if self._run.state == "running" or self.wait:
                return False
            self._run = Run("running", began_at=_now())
        threading.Thread(target=self._check, daemon=True, name="console-recount").start()
        return True

    def _check(self) -> None:
        try:
            found = self._ended(self._apart.run("verify", {"folder": str(self._folder)}, self._tell))
        except WardroundError as error:
            found = replace(self._run, state="failed", reason=error.message, hint=error.hint)
        except Exception:  # whatever it was: the page must not say "running" for ever
            found = replace(self._run, state="failed")
        with self._lock:
            self._free_at = self._clock() + self._pause
            self._run = replace(found, ended_at=_now())

    def _tell(self, said: Mapping[str, Any]) -> None:
        self._run = replace(self._run, so_far=said["so_far"], entries=said["entries"])

    def _ended(self, said: Mapping[str, Any]) -> Run:
        if "broken" in said:
            return replace(self._run, state="broken", **said["broken"])
        holds = Holds(**{**said["holds"], "countersigned_by": tuple(said["holds"]["countersigned_by"])})
        return replace(self._run, state="holds", so_far=holds.entries, entries=holds.entries, holds=holds)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
