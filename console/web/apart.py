"""Work that takes seconds, in another process, so that pages answer meanwhile and a hostile file meets an empty room.

The other process (``work``) gets one JSON object and answers with lines of JSON. It is killed when it takes too long,
and ends by itself when the console does, because nobody reads what it says.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from wardround.protocol.errors import Unavailable, UsageError, WardroundError

MOST_ANSWER: Final = 64 << 20
"""Bytes of one line of an answer: a paper of 16 MiB with its pages, in base64."""

_KINDS: Final = {"UsageError": UsageError, "Unavailable": Unavailable}


class Busy(Unavailable):
    """Other work of the same kind is under way."""


class Apart:
    """Runs one piece of work at a time. May be used from any thread, never from the event loop's own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._one = threading.Lock()

    def run(
        self, work: str, request: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> Any:
        """What ``work`` (a name in ``work.WORK``) makes of ``request``; ``tell`` hears how far it is.

        Raises:
            Busy: another is under way.
            UsageError, Unavailable: as the work raised it, or because it ended without an answer.
        """
        if not self._one.acquire(blocking=False):
            raise Busy("something else is being made or checked now", "try again in some seconds")
        try:
            return self._run(work, request, tell)
        finally:
            self._one.release()

    def _run(self, work: str, request: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None]) -> Any:
        command = [sys.executable, "-m", "wardround.console.web.work", work]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            watch = threading.Timer(self._seconds, process.kill)
            watch.daemon = True
            watch.start()
            try:
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
                while line := process.stdout.readline(MOST_ANSWER):
                    said = json.loads(line)
                    if "done" in said:
                        return said["done"]
                    if "error" in said:
                        raise _error(said["error"])
                    tell(said)
            except (OSError, ValueError):
                pass
            finally:
                watch.cancel()
                process.kill()
        raise Unavailable(
            "the work ended without an answer",
            f"it may take {self._seconds:.0f} s; the command line has no such limit (wardround --help)",
        )


def _error(said: Mapping[str, str]) -> WardroundError:
    return _KINDS.get(said["kind"], Unavailable)(said["message"], said["hint"])
