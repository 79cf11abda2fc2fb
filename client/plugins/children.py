"""The daemon's side of the wall: starts the worker, hands patients to children, and takes back so many numbers.

What comes back is a length and raw float32: there is nothing to parse. Whatever a child does, its answer is so many
numbers or none, and why there is none is nobody's business: it may depend on the patient.
"""

import array
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.plugins.isolation import HOW_TO_MEND
from wardround.client.plugins.worker import DONE, FORK, KILL, LENGTH, READY, receive, send
from wardround.protocol.canonical import encode
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plugins import Plugin

START_SECONDS: Final = 120.0
"""A worker imports torch."""

WORKER: Final = """
import sys
sys.path[:] = sys.argv[2:]
from wardround.client.plugins.worker import main
main(int(sys.argv[1]))
"""
"""The worker's program. It looks for modules where the daemon does, so that both are of one behaviour; nothing else of
the daemon's environment or folder reaches it."""

_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Worker:
    """One plugin behind the wall. Belongs to one thread.

    Args:
        about: what ``worker`` is told beside the plugin: kind, label, features, settings, size, seconds of processor
            time that one patient may take.
    """

    def __init__(self, plugin: Plugin, about: Mapping[str, Any]) -> None:
        self._given = encode({"plugin": plugin.model_dump(mode="json"), **about})
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the process, if there is none, and wait until it has proven its walls.

        Raises:
            Unavailable: this machine cannot isolate a plugin.
            UsageError: the plugin's text is no Python.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-B", "-c", WORKER, str(theirs.fileno()), *filter(None, sys.path)]
        try:
            process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise Unavailable("no process can be started for the plugin", "look at the machine's limits") from None
        finally:
            theirs.close()
        weakref.finalize(self, _end, process, ours)
        self._process, self._control = process, ours
        ours.settimeout(START_SECONDS)
        try:
            send(ours, self._given)
            said = receive(ours.recv, 1000)
        except (OSError, EOFError, ValueError):
            said = b"the plugin's process did not start"
        if said != READY:
            self.close()
            message = said.decode("utf-8", "replace")
            kind = UsageError if "no Python" in message else Unavailable
            raise kind(message, HOW_TO_MEND)

    def begin(self) -> socket.socket:
        """Start a child; returns the socket on which it answers. Raises OSError when the worker is gone."""
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            self._control.sendmsg([FORK], rights)
        return ours

    def end(self) -> None:
        """Kill the child, whatever it is doing. Raises OSError when the worker is gone."""
        assert self._control is not None
        self._control.sendall(KILL)
        if self._control.recv(1) != DONE:
            raise OSError("the worker is gone")

    def ask(self, request: bytes, count: int, seconds: float) -> npt.NDArray[np.float32] | None:
        """The ``count`` numbers that a new child answers to ``request``; None: not so many, or not in time.

        Raises:
            Unavailable: the worker cannot be started again.
        """
        until = time.monotonic() + seconds
        self.start()
        try:
            with self.begin() as connection:
                answer = exchange(connection, request, count, until)
            self.end()
        except OSError:
            self.close()
            return None
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._control is not None:
            _end(self._process, self._control)
        self._process = self._control = None


def exchange(connection: socket.socket, request: bytes, count: int, until: float) -> npt.NDArray[np.float32] | None:
    """Send ``request`` and take exactly ``count`` float32 until ``until`` (monotonic); None for anything else."""
    wanted = LENGTH + 4 * count
    found = bytearray()
    try:
        connection.settimeout(max(until - time.monotonic(), 1e-3))
        send(connection, request)
        while len(found) < wanted:
            connection.settimeout(max(until - time.monotonic(), 1e-3))
            part = connection.recv(min(1 << 20, wanted - len(found)))
            if not part:
                return None
            found += part
    except OSError:
        return None
    if int.from_bytes(found[:LENGTH], "big") != 4 * count:
        return None
    return np.frombuffer(found, "<f4", count, LENGTH)


def _end(process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
    control.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
