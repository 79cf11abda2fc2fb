"""Nobody shuts the daemon's own people out: not by many connections, not by watching, not by using up descriptors."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from wardround.client.control import control_pb2 as pb
from wardround.client.control import control_pb2_grpc as rpc
from wardround.client.control import peers
from wardround.client.control.client import control
from wardround.client.control.peers import MOST_CONNECTIONS, MOST_OF_OTHERS, Gate, Role
from wardround.client.control.server import MOST_WATCHERS, ControlServer
from wardround.client.daemon import DaemonStatus
from wardround.client.office import Office
from wardround.client.settings import Roles
from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import Unavailable
from wardround.protocol.identity import Identity

AUDITOR = 4002

HOLDING = """
import os, socket, sys
os.setgid(4002); os.setuid(4002)
held = []
for _ in range(200):
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(0.05)
    try:
        caller.connect(sys.argv[1]); caller.sendall(b"PRI * HT"); held.append(caller)
    except OSError:
        caller.close()
print("held", flush=True)
sys.stdin.readline()
"""

ASKING = """
import os, sys, grpc
from wardround.client.control import control_pb2 as pb, control_pb2_grpc as rpc
os.setgid(4002); os.setuid(4002)
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    print(rpc.SiteStub(channel).Status(pb.StatusRequest(), timeout=20, wait_for_ready=True).state)
"""

STARVED = """
import os, resource, socket, sys, threading
from pathlib import Path
from wardround.client.control import peers
from wardround.client.control.peers import Gate, Role
peers.RETRY_SECONDS = 0.005  # many retries in the second that the callers stay
folder = Path(sys.argv[1])
inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
inner.bind(str(folder / "inner")); inner.listen(64)
def echo(peer):
    with peer:
        while data := peer.recv(100):
            peer.sendall(data)
def serve():
    while True:
        try:
            peer, _ = inner.accept()
        except OSError:
            continue
        threading.Thread(target=echo, args=(peer,), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
gate, taken, freed = Gate(folder / "gate", {Role.IT: folder / "inner"}, lambda uid: Role.IT), [], threading.Event()
def fill():
    quiet = 0
    while not freed.wait(0.005):  # those of the last connection too, whenever it lets them go
        try:
            taken.append(os.dup(0))
            quiet = 0
        except OSError:
            quiet += 1
        if quiet == 100:
            filled.set()
filled, filling = threading.Event(), threading.Thread(target=fill, daemon=True)
for word in sys.stdin:
    if word == "listen\\n":
        gate.start()
    if word == "fill\\n":
        filling.start()
        filled.wait()
    if word == "free\\n":
        freed.set()
        filling.join()
        while taken:
            os.close(taken.pop())
    print(word, end="", flush=True)
"""


class Daemon:
    """A daemon that has a state and nothing else."""

    def __init__(self) -> None:
        self.state = "running"

    def status(self) -> DaemonStatus:
        return DaemonStatus("north", self.state, "up", "", "", "", 0, 0, "1", "00", 1, 0.0, "")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


class Failing:
    """A listening socket for which no descriptor is free ``left`` times."""

    def __init__(self, listener: socket.socket, left: int) -> None:
        self.listener, self.left = listener, left

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self.listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)


class Running:
    def __init__(self, path: Path) -> None:
        folder = SiteFolder.create(path / "north", "north", [Identity.generate("anna").public])
        self.daemon = Daemon()
        self.office = Office(folder, self.daemon)
        self.socket = path / "control.sock"
        self.server = ControlServer(self.socket, self.office, Roles(auditor=(AUDITOR,)), folder.path / "sockets")
        self.server.start()


@pytest.fixture
def short() -> Iterator[Path]:
    path = Path(f"/tmp/wr-g-{os.getpid()}-{threading.get_native_id()}")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def running(short: Path) -> Iterator[Running]:
    made = Running(short)
    yield made
    made.server.stop()
    made.office.close()


def echoed(path: Path, seconds: float) -> bool:
    """Whether a connection through the gate brings a word back within ``seconds``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(seconds)
        try:
            caller.connect(str(path))
            caller.sendall(b"word")
            return caller.recv(100) == b"word"
        except OSError:
            return False


def test_an_auditor_with_200_connections_leaves_room_for_who_runs_the_daemon(running: Running) -> None:
    """A real process of another user; without a share of its own the role ``it`` would wait behind it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    assert MOST_OF_OTHERS < MOST_CONNECTIONS
    words = [sys.executable, "-c", HOLDING, str(running.socket)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hostile:
        assert hostile.stdout is not None and hostile.stdout.readline() == b"held\n"
        with control(running.socket) as site:
            assert site.Status(pb.StatusRequest(), timeout=10).state == "running"
        hostile.communicate(b"\n", timeout=30)
    again = subprocess.run([sys.executable, "-c", ASKING, str(running.socket)], capture_output=True, timeout=60)
    assert again.stdout == b"running\n", "the places of those who have gone are free again"


def test_a_gate_that_ran_out_of_descriptors_serves_again_when_some_are_free(short: Path) -> None:
    words = [sys.executable, "-c", STARVED, str(short)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def told(word: bytes) -> None:
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == word + b"\n"

        told(b"listen")
        assert echoed(short / "gate", 10)
        told(b"fill")
        assert not echoed(short / "gate", 1), "no descriptor is left for a caller"
        told(b"free")
        assert any(echoed(short / "gate", 3) for _ in range(5))
        process.communicate(timeout=30)


def test_a_connection_that_could_not_be_accepted_keeps_no_place(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says "too many open files" more often than there are places; then it serves again."""
    monkeypatch.setattr(peers, "RETRY_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
        inner.bind(str(short / "inner"))
        inner.listen()
        gate = Gate(short / "gate", {Role.IT: short / "inner"}, lambda uid: Role.IT)
        gate.start()
        listener = gate._listener
        assert listener is not None
        failing = Failing(listener, 3 * MOST_CONNECTIONS)
        gate._listener = cast(socket.socket, failing)
        inner.settimeout(10)
        for _ in range(3):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(short / "gate"))
                inner.accept()[0].close()
        assert failing.left == 0
        gate.stop()


def test_watchers_are_told_of_changes_and_leave_threads_for_calls(running: Running) -> None:
    with grpc.insecure_channel(f"unix:{running.socket}") as channel:
        site = rpc.SiteStub(channel)  # type: ignore[no-untyped-call]
        watchers = [site.Watch(pb.Empty(), timeout=60) for _ in range(MOST_WATCHERS)]
        assert [next(watcher).state for watcher in watchers] == ["running"] * MOST_WATCHERS
        with pytest.raises(Unavailable, match="watch already"), control(running.socket) as other:
            next(other.Watch(pb.Empty(), timeout=10))
        assert site.Status(pb.StatusRequest(), timeout=10).state == "running"
        running.daemon.state = "paused"
        assert [next(watcher).state for watcher in watchers] == ["paused"] * MOST_WATCHERS
        for watcher in watchers:
            watcher.cancel()
        end = time.monotonic() + 20
        while True:
            try:
                assert next(site.Watch(pb.Empty(), timeout=10)).state == "paused"
                return
            except grpc.RpcError:
                assert time.monotonic() < end, "a watcher that has gone keeps its place"
                time.sleep(0.2)


def test_a_megabyte_of_junk_and_half_a_frame_are_closed_and_the_next_caller_is_served(running: Running) -> None:
    for junk in (b"\xff" * (1 << 20), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00", os.urandom(1 << 20)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(10)
            caller.connect(str(running.socket))
            try:
                caller.sendall(junk)
            except OSError:
                continue  # it closed in the middle
        with control(running.socket) as site:
            assert site.Status(pb.StatusRequest(), timeout=10).state == "running"
