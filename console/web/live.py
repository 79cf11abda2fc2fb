"""The daemon's status as it changes, passed on to browsers as server-sent events.

One thread watches the daemon while somebody listens, and tries again when it does not answer. Each listener keeps only
the newest status, so a slow browser costs nothing. What an event says is made in the listener's own language.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import control
from wardround.protocol.errors import WardroundError

MOST_LISTENERS: Final = 24
MOST_OF_ONE: Final = 4
"""Listeners of one session: a window each, and a browser that has not noticed that one was closed."""

HEARTBEAT_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 4000
_AGAIN_SECONDS: Final = 2.0
_STATUS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """How the daemon stands; ``answers`` False: nothing else is known. See StatusReply in control.proto."""

    answers: bool
    site: str = ""
    state: str = ""
    link: str = ""
    last_exchange: str = ""
    last_at: str = ""
    last_plan: str = ""
    round_number: int = 0
    refusals: int = 0
    version: str = ""
    behaviour: str = ""
    started_at: float = 0.0
    reason: str = ""


NO_ANSWER: Final = Status(answers=False)


class TooMany(Exception):
    """No further listener is taken."""


def status_of(reply: Any) -> Status:
    """From the daemon's reply."""
    names = [name for name in Status.__slots__ if name != "answers"]
    return Status(answers=True, **{name: getattr(reply, name) for name in names})


def ask(folder: Path) -> Status:
    """The daemon's status now; NO_ANSWER where none answers."""
    try:
        with control(folder) as site:
            return status_of(site.Status(pb.StatusRequest(), timeout=_STATUS_SECONDS))
    except WardroundError:
        return NO_ANSWER


class Live:
    """Watches the daemon of ``folder`` for as long as anybody listens."""

    def __init__(self, folder: Path, heartbeat: float = HEARTBEAT_SECONDS, again: float = _AGAIN_SECONDS) -> None:
        self._folder = folder
        self._heartbeat = heartbeat
        self._again = again
        self._lock = threading.Lock()
        self._listeners: dict[object, tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._watching: threading.Thread | None = None
        self._stopping = threading.Event()
        self._newest: Status | None = None
        self._call: Any = None

    def close(self) -> None:
        """Watch no more; every listener ends."""
        self._stopping.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
            self._wake()

    async def events(
        self, owner: str, words: Callable[[Status], dict[str, str]], awake: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Server-sent events for one browser.

        Args:
            owner: whose listener it is, to count them.
            words: what an event says of a status; called on a thread, so it may read.
            awake: asked at every beat; False ends the stream, for example when the session is over.
        Raises:
            TooMany: before the first event.
        """
        changed, me = asyncio.Event(), object()
        self._join(me, owner, changed)
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
            said: dict[str, str] | None = None
            asked = time.monotonic()
            while not self._stopping.is_set():
                status = self._newest
                if status is not None and (now := await asyncio.to_thread(words, status)) != said:
                    said = now
                    yield f"event: status\ndata: {json.dumps(now)}\n\n".encode()
                try:
                    await asyncio.wait_for(changed.wait(), self._heartbeat)
                    changed.clear()
                except TimeoutError:
                    yield b": still here\n\n"
                # By the clock, not at the beats: a daemon that says something new each second has none.
                if time.monotonic() - asked >= self._heartbeat:
                    asked = time.monotonic()
                    if not await asyncio.to_thread(awake):
                        yield b"event: over\ndata: {}\n\n"
                        return
        finally:
            with self._lock:
                self._listeners.pop(me, None)
                if not self._listeners and self._call is not None:
                    self._call.cancel()

    def _join(self, me: object, owner: str, changed: asyncio.Event) -> None:
        with self._lock:
            own = sum(of == owner for of, _, _ in self._listeners.values())
            if len(self._listeners) >= MOST_LISTENERS or own >= MOST_OF_ONE or self._stopping.is_set():
                raise TooMany
            self._listeners[me] = owner, asyncio.get_running_loop(), changed
            if self._watching is None:
                self._watching = threading.Thread(target=self._watch, daemon=True, name="console-live")
                self._watching.start()

    def _watch(self) -> None:
        while True:
            with self._lock:
                if not self._listeners or self._stopping.is_set():
                    self._watching, self._newest = None, None
                    return
            try:
                with control(self._folder) as site:
                    call = site.Watch(pb.Empty())
                    with self._lock:
                        self._call = call
                        if not self._listeners or self._stopping.is_set():
                            call.cancel()
                    for reply in call:
                        self._tell(status_of(reply))
            except WardroundError:
                pass
            finally:
                with self._lock:
                    self._call = None
                    listened = bool(self._listeners)
            if listened and not self._stopping.is_set():
                self._tell(NO_ANSWER)
                until = time.monotonic() + self._again
                while time.monotonic() < until and not self._stopping.is_set():
                    time.sleep(0.05)

    def _tell(self, status: Status) -> None:
        with self._lock:
            self._newest = status
            self._wake()

    def _wake(self) -> None:
        for _, loop, event in self._listeners.values():
            with suppress(RuntimeError):  # the server that this loop belonged to has ended
                loop.call_soon_threadsafe(event.set)
