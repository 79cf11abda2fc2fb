"""Whoever listens to something that changes: each browser's stream of server-sent events, and their number.

Each listener keeps only the newest value, so a slow browser costs nothing. What an event says is made in the listener's
own language. A subclass watches, on one thread, for as long as anybody listens.
"""

import asyncio
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

MOST_LISTENERS: Final = 24
MOST_OF_ONE: Final = 4
"""Listeners of one session: a window each, and a browser that has not noticed that one was closed."""

HEARTBEAT_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 4000

Seen = TypeVar("Seen")


class TooMany(Exception):
    """No further listener is taken."""


class Listeners(ABC, Generic[Seen]):
    """The streams of one console. ``_watch`` of a subclass calls ``_tell`` with each new value."""

    def __init__(self, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._listeners: dict[object, tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._watching: threading.Thread | None = None
        self._stopping = threading.Event()
        self._newest: Seen | None = None

    def close(self) -> None:
        """Watch no more; every listener ends."""
        self._stopping.set()
        with self._lock:
            self._interrupt()
            self._wake()

    async def events(
        self, owner: str, words: Callable[[Seen], dict[str, str]], awake: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Server-sent events for one browser.

        Args:
            owner: whose listener it is, to count them.
            words: what an event says of a value; called on a thread, so it may read.
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
                newest = self._newest
                if newest is not None and (now := await asyncio.to_thread(words, newest)) != said:
                    said = now
                    yield f"event: status\ndata: {json.dumps(now)}\n\n".encode()
                try:
                    await asyncio.wait_for(changed.wait(), self._heartbeat)
                    changed.clear()
                except TimeoutError:
                    yield b": still here\n\n"
                # By the clock, not at the beats: what says something new each second has none.
                if time.monotonic() - asked >= self._heartbeat:
                    asked = time.monotonic()
                    if not await asyncio.to_thread(awake):
                        yield b"event: over\ndata: {}\n\n"
                        return
        finally:
            with self._lock:
                self._listeners.pop(me, None)
                if not self._listeners:
                    self._interrupt()

    @abstractmethod
    def _watch(self) -> None:
        """Tell each new value; returns when ``_nobody``."""

    def _interrupt(self) -> None:
        """Let a watch that waits notice that nobody listens; the lock is held."""

    def _idle(self) -> bool:
        """Whether nobody listens now."""
        with self._lock:
            return not self._listeners or self._stopping.is_set()

    def _nobody(self) -> bool:
        """Whether to watch no more: then the next listener starts a new watch."""
        with self._lock:
            if self._listeners and not self._stopping.is_set():
                return False
            self._watching, self._newest = None, None
            return True

    def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the console lives."""
        self._stopping.wait(seconds)

    def _join(self, me: object, owner: str, changed: asyncio.Event) -> None:
        with self._lock:
            own = sum(of == owner for of, _, _ in self._listeners.values())
            if len(self._listeners) >= MOST_LISTENERS or own >= MOST_OF_ONE or self._stopping.is_set():
                raise TooMany
            self._listeners[me] = owner, asyncio.get_running_loop(), changed
            if self._watching is None:
                self._watching = threading.Thread(target=self._watch, daemon=True, name="console-live")
                self._watching.start()

    def _tell(self, value: Seen) -> None:
        with self._lock:
            self._newest = value
            self._wake()

    def _wake(self) -> None:
        for _, loop, event in self._listeners.values():
            with suppress(RuntimeError):  # the server that this loop belonged to has ended
                loop.call_soon_threadsafe(event.set)
