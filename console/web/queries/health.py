"""How a site's machine is: the doctor's findings, kept for a minute, and plain facts of the folder.

Only what is cheap and local is looked at when a page is opened. The way to the coordinator is walked when somebody asks
for it. Neither is waited for longer than a page may take; what is not ready yet is shown by the next page.
"""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wardround.client.cache import CACHE
from wardround.client.doctor import Finding, examined_from, run_cheap, run_way
from wardround.client.doctor.local import DISK_WARNING
from wardround.client.store.backup import MARK
from wardround.client.store.folder import SiteFolder

KEPT_SECONDS: Final = 60.0
PATIENCE: Final = 4.0
"""Seconds that a page waits for the doctor."""

WAY_SECONDS: Final = 5.0
"""Until silence on the network counts as an answer."""

_LOG: Final = "logs/daemon.log"
_TAIL: Final = 1 << 16
_LINE: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (?:WARNING|ERROR) wardround\.[a-z_.]+ (.+)")
_PAIR: Final = re.compile(r" (plan|round|code|error|type|uid|role|call|after)=([A-Za-z0-9_.-]{1,40})(?= |$)")

EVENTS: Final = (
    "refused",
    "link not usable",
    "task of another type",
    "message failed",
    "control connection lost",
    "control connection refused",
    "control call refused",
    "control call failed",
    "the series is not kept",
    "bulletin refused",
    "own ledger is not what others hold",
    "ledger alarm",
    "supernode ended",
)
"""What the daemon logs as a fault, event first. A line that begins otherwise is not ours, and is not shown."""


@dataclass(frozen=True, slots=True)
class Examination:
    """Findings, and when they were made, in seconds since the epoch."""

    at: float
    findings: tuple[Finding, ...]


class Examiner:
    """Runs ``work`` on a thread of its own, once at a time, and keeps what it found last."""

    def __init__(self, work: Callable[[], list[Finding]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()
        self._last: Examination | None = None

    @property
    def running(self) -> bool:
        return not self._done.is_set()

    @property
    def last(self) -> Examination | None:
        return self._last

    def examine(self, wait: float = PATIENCE) -> Examination | None:
        """Begin, unless it runs already, and wait so long; what was found last, or None before the first end."""
        with self._lock:
            if self._done.is_set():
                self._done.clear()
                threading.Thread(target=self._run, daemon=True, name="console-doctor").start()
        self._done.wait(wait)
        return self._last

    def recent(self, seconds: float = KEPT_SECONDS) -> Examination | None:
        """What was found in the last ``seconds``, or is found now."""
        last = self._last
        return last if last is not None and 0 <= time.time() - last.at < seconds else self.examine()

    def _run(self) -> None:
        try:
            self._last = Examination(time.time(), tuple(self._work()))
        finally:
            self._done.set()


@dataclass(frozen=True, slots=True)
class Fault:
    """The last fault in the daemon's log: ``event`` is one of ``EVENTS``; ``values`` are numbers and names of ours."""

    at: datetime
    event: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the folder. Sizes are in bytes; ``started``: whether a daemon ever ran here; ``backed_up_at``: None: never."""

    free: int
    wanted: int
    ledger: int
    cache: int
    logs: int
    backed_up_at: float | None
    log: Path
    console_log: Path
    started: bool
    fault: Fault | None


class Health:
    """The health of one site's machine. May be used from any thread."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self.machine = Examiner(lambda: run_cheap(examined_from(None, folder.path)))
        self.way = Examiner(lambda: run_way(examined_from(None, folder.path), seconds=WAY_SECONDS))

    def facts(self) -> Facts:
        """What the folder says now."""
        path = self._folder.path
        mark = path / MARK
        return Facts(
            free=shutil.disk_usage(path).free,
            wanted=DISK_WARNING,
            ledger=sum(_size(path / f"ledger.sqlite{end}") for end in ("", "-wal")),
            cache=sum(map(_size, _files(path / CACHE))),
            logs=sum(map(_size, _files(path / "logs"))),
            backed_up_at=mark.stat().st_mtime if mark.exists() else None,
            log=path / _LOG,
            console_log=path / "logs" / "console.log",
            started=(path / _LOG).exists(),
            fault=last_fault(path / _LOG),
        )


def last_fault(log: Path) -> Fault | None:
    """The newest fault in the end of a log. Of its text only the event, and values that a pattern admits."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        match = _LINE.fullmatch(line)
        event = match and next((one for one in EVENTS if f"{match[2]} ".startswith(f"{one} ")), None)
        if match and event:
            at = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone(UTC)
            # A reason is a text: it stays in the log.
            said = match[2].partition(" reason=")[0]
            return Fault(at, event, tuple(_PAIR.findall(said)))
    return None


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.rglob("*") if path.is_file())
    except OSError:
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
