"""Who is at the other end of the control socket: asked of the kernel, not of the caller.

Python's gRPC does not show the peer's user (SO_PEERCRED, unix(7)). So the socket that people see is ours: each
connection's user is looked up, mapped to a role, and its bytes are passed on to that role's own gRPC server behind an
inner socket that only the daemon's user can reach. A user without a role gets no byte through.
"""

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from wardround.client.settings import Roles
from wardround.protocol.errors import Unavailable

MOST_CONNECTIONS: Final = 64
"""Connections at a time; more wait in the kernel's queue."""

MOST_OF_OTHERS: Final = 48
"""Connections at a time of all roles but ``it``: who runs the daemon finds a place, however many others hold."""

MOST_WAITING: Final = 1024
"""In the kernel's queue; a caller who finds it full is turned away at once, whoever it is."""

IDLE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 0.5
_CREDENTIALS: Final = struct.Struct("3i")
_CHUNK: Final = 65536

log = logging.getLogger(__name__)


class Role(StrEnum):
    """What a user of this machine may do: run the daemon, decide on studies, or read."""

    IT = "it"
    OFFICER = "officer"
    AUDITOR = "auditor"


def role_of(uid: int, roles: Roles, own: int) -> Role | None:
    """The role of a user: root and the daemon's own user are ``it``; None: nobody."""
    if uid in (0, own) or uid in roles.it:
        return Role.IT
    if uid in roles.officer:
        return Role.OFFICER
    return Role.AUDITOR if uid in roles.auditor else None


class Gate:
    """Listens at ``path`` and passes each connection on to the inner socket of its user's role."""

    def __init__(self, path: Path, inner: Mapping[Role, Path], role: Callable[[int], Role | None]) -> None:
        self._path = path
        self._inner = dict(inner)
        self._role = role
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._others = threading.BoundedSemaphore(MOST_OF_OTHERS)
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen; any user of the machine may connect, and the kernel says who it is.

        Raises:
            Unavailable: the socket cannot be made here (a path longer than 107 bytes, a full disk).
        """
        try:
            self._path.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(self._path))
            self._path.chmod(0o666)
            self._listener.listen(MOST_WAITING)
        except OSError as error:
            raise Unavailable(
                f"the control socket '{self._path}' cannot be made: {error}", "use a shorter path, or free the disk"
            ) from error
        threading.Thread(target=self._accept, daemon=True, name="control-gate").start()

    def stop(self) -> None:
        """Listen no more; connections that are open end with the daemon."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while (listener := self._listener) is not None:
            self._slots.acquire()
            try:
                peer, _ = listener.accept()
            except OSError:
                self._slots.release()
                # Stopped, or no file descriptor is free: a gate that gave up here would lock the daemon's people out.
                time.sleep(RETRY_SECONDS)
                continue
            try:
                self._admit(peer)
            except (OSError, RuntimeError) as error:  # the caller has gone, or no thread can be started
                log.warning("control connection lost error=%s", type(error).__name__)
                peer.close()
                self._slots.release()

    def _admit(self, peer: socket.socket) -> None:
        """Give the connection to a thread of its own, which frees its place; or close it."""
        uid = _uid(peer)
        role = self._role(uid)
        places = [self._slots]
        if role is not None and role is not Role.IT:
            places.append(self._others)
            if not self._others.acquire(blocking=False):
                role = None
        if role is None:
            log.warning("control connection refused uid=%d", uid)
            peer.close()
            self._slots.release()
            return
        try:
            threading.Thread(target=self._pass_on, args=(peer, self._inner[role], places), daemon=True).start()
        except RuntimeError:
            if role is not Role.IT:
                self._others.release()
            raise

    def _pass_on(self, peer: socket.socket, inner: Path, places: Sequence[threading.Semaphore]) -> None:
        try:
            with peer, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                # Who does not read what is sent to them is gone too.
                peer.settimeout(IDLE_SECONDS)
                server.settimeout(IDLE_SECONDS)
                server.connect(str(inner))
                _splice(peer, server)
        except OSError:
            log.debug("control connection ended")
        finally:
            for place in places:
                place.release()


def _uid(peer: socket.socket) -> int:
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


def _splice(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either end closes, or nothing comes for ``IDLE_SECONDS``."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while events := ready.select(IDLE_SECONDS):
            for key, _ in events:
                source, sink = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(_CHUNK)
                if not data:
                    return
                sink.sendall(data)


def own_uid() -> int:
    return os.getuid()
