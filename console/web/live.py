"""The daemon's status as it changes, passed on to browsers as server-sent events.

One thread watches the daemon while somebody listens, and tries again when it does not answer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import control
from wardround.console.web.listeners import HEARTBEAT_SECONDS, Listeners
from wardround.protocol.errors import WardroundError

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


class Live(Listeners[Status]):
    """Watches the daemon of ``folder`` for as long as anybody listens."""

    def __init__(self, folder: Path, heartbeat: float = HEARTBEAT_SECONDS, again: float = _AGAIN_SECONDS) -> None:
        super().__init__(heartbeat)
        self._folder = folder
        self._again = again
        self._call: Any = None

    def _interrupt(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _watch(self) -> None:
        while not self._nobody():
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
                self._pause(self._again)
