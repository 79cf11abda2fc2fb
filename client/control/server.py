"""The control service: one gRPC server for each role, behind the gate that knows who is calling."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from wardround.client.control import control_pb2 as pb
from wardround.client.control import control_pb2_grpc as rpc
from wardround.client.control.peers import Gate, Role, own_uid, role_of
from wardround.client.office import Office, StudyView
from wardround.client.settings import Roles
from wardround.client.store.officers import Roll
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError, WardroundError

SERVICE: Final = "wardround.site.v1.Site"

_READING: Final = frozenset({"Status", "ListStudies", "ShowStudy", "ShowPlugin", "Report", "Watch", "ListOfficers"})
_DECIDING: Final = frozenset({"Record", "RefuseStudy"})
_RUNNING: Final = frozenset({"Pause", "Resume", "Stop"})

ALLOWED: Final[dict[Role, frozenset[str]]] = {
    Role.IT: _READING | _RUNNING | _DECIDING,
    Role.OFFICER: _READING | _DECIDING,
    Role.AUDITOR: _READING,
}
"""Which calls a role may make. A decision still needs an officer's signature, whoever brings it."""

MOST_BYTES: Final = 4 << 20
WATCH_SECONDS: Final = 0.5
MOST_WATCHERS: Final = 4
"""Of each role. A watcher holds one of the role's threads, and half of them stay free for calls."""

_THREADS: Final = 2 * MOST_WATCHERS

log = logging.getLogger(__name__)


class ControlServer:
    """Serves the control socket of a site until ``stop``. Raises Unavailable where a socket cannot be made."""

    def __init__(self, path: Path, office: Office, roles: Roles, inner: Path) -> None:
        inner.mkdir(mode=0o700, exist_ok=True)
        inner.chmod(0o700)
        self._health = health.HealthServicer()
        self._servers: list[grpc.Server] = []
        sockets = {role: inner / f"{role.value}.sock" for role in Role}
        for role, place in sockets.items():
            place.unlink(missing_ok=True)
            server = grpc.server(
                ThreadPoolExecutor(_THREADS, f"control-{role.value}"),
                interceptors=[_ByRole(role)],
                options=[("grpc.max_receive_message_length", MOST_BYTES), ("grpc.so_reuseport", 0)],
                maximum_concurrent_rpcs=32,
            )
            rpc.add_SiteServicer_to_server(_Service(office), server)  # type: ignore[no-untyped-call]
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            try:
                server.add_insecure_port(f"unix:{place}")
            except RuntimeError:
                raise Unavailable(
                    f"the control socket '{place}' cannot be made",
                    "move the site's folder to a shorter path: a socket's has at most 107 bytes",
                ) from None
            self._servers.append(server)
        own = own_uid()
        self._gate = Gate(path, sockets, lambda uid: role_of(uid, roles, own))

    def start(self) -> None:
        """Begin to serve; the health service says so."""
        for server in self._servers:
            server.start()
        self._gate.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        self._health.enter_graceful_shutdown()
        self._gate.stop()
        for server in self._servers:
            server.stop(1.0).wait()


class _ByRole(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses what the role of this server may not call."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def intercept_service(self, go_on: Callable[[Any], Any], call: Any) -> Any:
        service, _, method = call.method.lstrip("/").partition("/")
        if service != SERVICE or method in ALLOWED[self._role]:
            return go_on(call)
        log.warning("control call refused role=%s call=%s", self._role.value, method)

        def refuse(request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the role '{self._role.value}' may not call {method}")

        return grpc.unary_unary_rpc_method_handler(refuse)


class _Service(rpc.SiteServicer):
    """The calls, turned into those of the office; its errors become a status and two lines."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._watchers = threading.BoundedSemaphore(MOST_WATCHERS)

    def Status(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: _status(self._office))

    def Pause(self, request: Any, context: Any) -> Any:
        return _done(context, lambda: self._office.pause(request.reason))

    def Resume(self, request: Any, context: Any) -> Any:
        return _done(context, self._office.resume)

    def Stop(self, request: Any, context: Any) -> Any:
        return _done(context, self._office.stop)

    def ListStudies(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: pb.Studies(studies=[_study(view) for view in self._office.studies()]))

    def ShowStudy(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: _study(self._office.study(request.digest)))

    def ShowPlugin(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: pb.PluginReply(lines=self._office.plugin(request.digest)))

    def ListOfficers(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: _officers(self._office.officers()))

    def Record(self, request: Any, context: Any) -> Any:
        return _done(context, lambda: self._office.record(list(request.facts)))

    def RefuseStudy(self, request: Any, context: Any) -> Any:
        return _done(context, lambda: self._office.refuse(request.digest, request.reason))

    def Report(self, request: Any, context: Any) -> Any:
        return _answered(context, lambda: pb.ReportReply(json=self._office.report(request.digest)))

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        if not self._watchers.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MOST_WATCHERS} others of this role watch already\nend one of them",
            )
        try:
            before = None
            while context.is_active():
                now = _status(self._office)
                if now != before:
                    before = now
                    yield now
                time.sleep(WATCH_SECONDS)
        finally:
            self._watchers.release()


def _status(office: Office) -> Any:
    status = office.status()
    names = [field.name for field in pb.StatusReply.DESCRIPTOR.fields if field.name != "ledger_key"]
    return pb.StatusReply(**{name: getattr(status, name) for name in names}, ledger_key=office.ledger_key)


def _study(view: StudyView) -> Any:
    return pb.Study(
        digest=view.plan.digest,
        plan=view.plan.canonical,
        received_at=view.received_at,
        standing=view.standing.value,
        refused=view.refused,
        fault=view.fault,
        rounds_charged=view.rounds_charged,
        ledger_key=view.ledger_key,
        grants=[pb.Grant(domain=g.domain, version=g.version, blocks=g.blocks, used=g.used) for g in view.grants],
        domains=view.domains,
        waived=view.waived,
        budgets=[pb.Budget(domain=b.domain, spent=b.spent, allowance=b.allowance, order=b.order) for b in view.budgets],
        suspended_by=[
            pb.Suspension(officer=one.officer, key=one.key, reason=one.reason, at=one.at) for one in view.suspended_by
        ],
    )


def _officers(roll: Roll) -> Any:
    keys = [
        pb.OfficerKey(
            name=one.name,
            key=one.key,
            listed=one.listed,
            reason=one.reason,
            note=one.note,
            at=one.at,
            signed=[pb.Signed(**asdict(each)) for each in one.signed],
        )
        for one in roll.keys
    ]
    return pb.Officers(version=roll.version, keys=keys, waiting=roll.waiting)


def _done(context: Any, work: Callable[[], None]) -> Any:
    def both() -> Any:
        work()
        return pb.Empty()

    return _answered(context, both)


def _answered(context: Any, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except WardroundError as error:
        codes = {
            UsageError: grpc.StatusCode.FAILED_PRECONDITION,
            ProtocolViolation: grpc.StatusCode.INVALID_ARGUMENT,
            Unavailable: grpc.StatusCode.UNAVAILABLE,
        }
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
        context.abort(code, f"{error.message}\n{error.hint}")
    except Exception as error:  # its text may hold a patient's value
        log.error("control call failed error=%s", type(error).__name__)
        if os.environ.get("WARDROUND_DEBUG") == "1":
            log.exception("control call failed")
        context.abort(grpc.StatusCode.INTERNAL, f"a defect ({type(error).__name__})\nsee the daemon's log")
