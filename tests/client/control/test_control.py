"""The control socket: who may call what is asked of the kernel, and a hostile caller harms nobody."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import control
from wardround.client.control.peers import Role, role_of
from wardround.client.control.server import ALLOWED, ControlServer
from wardround.client.daemon import DaemonStatus
from wardround.client.governance import open_domain
from wardround.client.office import Office
from wardround.client.settings import Roles
from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.events import Unprotected
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Reserve, approve

NOBODY, OFFICER, AUDITOR = 65534, 4001, 4002


class Daemon:
    """What the office asks of a daemon, remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def status(self) -> DaemonStatus:
        return DaemonStatus("north", "running", "up", "", "", "", 0, 0, "1", "00", 1, 0.0, "")

    def pause(self, reason: str) -> None:
        self.said.append(f"pause {reason}")

    def resume(self) -> None:
        self.said.append("resume")

    def stop(self) -> None:
        self.said.append("stop")

    def interrupt(self, plan: str) -> None:
        self.said.append(f"interrupt {plan[:4]}")

    def let(self, plan: str) -> None:
        self.said.append(f"let {plan[:4]}")

    def report(self, plan: Any, store: Any) -> str:
        return "{}"


class Running:
    def __init__(self, path: Path) -> None:
        self.officer = Identity.generate("anna")
        self.folder = SiteFolder.create(path / "north", "north", [self.officer.public])
        self.daemon = Daemon()
        self.office = Office(self.folder, self.daemon)
        # Where another user can reach it: the site's own folder is closed to everybody else.
        self.socket = path / "control.sock"
        roles = Roles(officer=(OFFICER,), auditor=(AUDITOR,))
        self.server = ControlServer(self.socket, self.office, roles, self.folder.path / "sockets")
        self.server.start()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    short = Path(f"/tmp/wr-{os.getpid()}-{threading.get_native_id()}")
    short.mkdir(mode=0o755)
    made = Running(short)
    yield made
    made.server.stop()
    made.office.close()
    subprocess.run(["rm", "-r", str(short)], check=True)


def test_the_daemons_own_user_may_do_everything(running: Running) -> None:
    with control(running.socket) as site:
        assert site.Status(pb.StatusRequest(), timeout=10).site == "north"
        site.Pause(pb.PauseRequest(reason="disk is full"), timeout=10)
        site.Resume(pb.Empty(), timeout=10)
        site.Stop(pb.Empty(), timeout=10)
    assert running.daemon.said == ["pause disk is full", "resume", "stop"]


def test_a_refusal_comes_back_as_two_lines(running: Running) -> None:
    with pytest.raises(UsageError) as refused, control(running.socket) as site:
        site.Pause(pb.PauseRequest(reason=" "), timeout=10)
    assert refused.value.lines().count("\n") == 1
    assert "reason" in refused.value.message


def test_a_folder_whose_path_is_too_long_for_a_socket_is_answered_in_two_lines(
    running: Running, tmp_path: Path
) -> None:
    place = tmp_path / ("a" * 100)
    place.mkdir()
    with pytest.raises(Unavailable, match="sock' cannot be made") as refused:
        ControlServer(running.socket, running.office, Roles(), place / "sockets")
    assert refused.value.lines().count("\n") == 1 and "107 bytes" in refused.value.lines()


def test_facts_need_an_officers_signature_and_only_some_kinds_are_taken(running: Running) -> None:
    key = running.folder.identity().public.key.hex()
    fact = open_domain("training", 8.0, 1e-4)
    with pytest.raises(UsageError), control(running.socket) as site:
        site.Record(pb.RecordRequest(facts=[fact.model_dump_json().encode()]), timeout=10)
    signed = approve(fact, key, running.officer)
    with control(running.socket) as site:
        site.Record(pb.RecordRequest(facts=[signed.model_dump_json().encode()]), timeout=10)
    forbidden = Reserve(domain="training", block="b", plan="p", round_number=1, event=Unprotected(releases=1))
    with pytest.raises(UsageError, match="may not append"), control(running.socket) as site:
        site.Record(pb.RecordRequest(facts=[forbidden.model_dump_json().encode()]), timeout=10)
    stranger = approve(open_domain("other", 8.0, 1e-4), key, Identity.generate("mallory"))
    with pytest.raises(UsageError, match="no officer"), control(running.socket) as site:
        site.Record(pb.RecordRequest(facts=[stranger.model_dump_json().encode()]), timeout=10)
    assert set(running.folder.ledger().state.domains) == {"training"}


@pytest.mark.parametrize(
    ("uid", "call", "allowed"),
    [
        (OFFICER, "status", True),
        (OFFICER, "pause", False),
        (AUDITOR, "status", True),
        (AUDITOR, "refuse", False),
        (NOBODY, "status", False),
    ],
)
def test_a_user_of_the_machine_may_do_what_the_role_of_the_uid_allows(
    running: Running, uid: int, call: str, allowed: bool
) -> None:
    """A real process of that user; the kernel tells the daemon who it is."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users")
    program = f"""
import os, sys
import grpc
from wardround.client.control import control_pb2 as pb, control_pb2_grpc as rpc
os.setgid({uid}); os.setuid({uid})
with grpc.insecure_channel("unix:{running.socket}") as channel:
    site = rpc.SiteStub(channel)
    calls = dict(status=lambda: site.Status(pb.StatusRequest(), timeout=10),
                 pause=lambda: site.Pause(pb.PauseRequest(reason="x"), timeout=10),
                 refuse=lambda: site.RefuseStudy(pb.RefuseRequest(digest="x", reason="y"), timeout=10))
    try:
        calls["{call}"]()
    except grpc.RpcError as error:
        print(error.code().name); sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if allowed else 3), done.stderr
    if not allowed:
        assert done.stdout.strip() == ("UNAVAILABLE" if uid == NOBODY else "PERMISSION_DENIED")
    assert running.daemon.said == []


def test_roles_are_what_the_settings_say() -> None:
    roles = Roles(it=(5,), officer=(6,), auditor=(7,))
    expected = {0: Role.IT, 9: Role.IT, 5: Role.IT, 6: Role.OFFICER, 7: Role.AUDITOR, 8: None}
    assert {uid: role_of(uid, roles, own=9) for uid in expected} == expected
    assert ALLOWED[Role.AUDITOR] < ALLOWED[Role.OFFICER] < ALLOWED[Role.IT]


def test_the_health_service_answers_probes(running: Running) -> None:
    with grpc.insecure_channel(f"unix:{running.socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "wardround.site.v1.Site"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_junk_half_frames_and_many_connections_leave_the_service_standing(running: Running) -> None:
    open_: list[socket.socket] = []
    for number in range(100):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        caller.connect(str(running.socket))
        caller.settimeout(5.0)
        with contextlib.suppress(OSError):
            caller.sendall([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00", b"\xff" * 65536][number % 3])
        if number % 2:
            caller.close()
        else:
            open_.append(caller)
    for caller in open_:
        caller.close()
    with control(running.socket) as site:
        assert site.Status(pb.StatusRequest(), timeout=60, wait_for_ready=True).state == "running"


def test_without_a_daemon_the_command_says_so_in_two_lines(tmp_path: Path) -> None:
    with pytest.raises(WardroundError) as refused, control(tmp_path):
        pass
    assert "no daemon runs" in refused.value.message


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [root / "scripts" / "protos", str(tmp_path)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(made) == {"control_pb2.py", "control_pb2.pyi", "control_pb2_grpc.py"}
    for name, content in made.items():
        assert (root / "client" / "control" / name).read_bytes() == content, f"run scripts/protos: {name} is stale"
