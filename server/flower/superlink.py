"""The SuperLink: Flower's service on loopback, and a public listener that lets through what a site needs.

::

    internet ──TLS──> public listener ──> /v1/fleet/wardround/*  door (enrolment)
                                     ├──> /v1/fleet/*            Flower, signed by registered nodes
                                     ├──> /health                Flower
                                     └──> anything else          404
    loopback ───────> Flower's control and runtime

An empty ``pull-messages`` is held for up to ``HOLD_SECONDS`` and asked again when something was pushed: a site then
hears of a message at once and not after three seconds.
"""

import asyncio
import contextlib
import copy
import logging
import sqlite3
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import uvicorn
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore import sql_mixin
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from wardround.server.flower.stops import tell_of_stops

HOLD_SECONDS: Final = 15.0
"""How long an empty pull is held: half of the time after which a SuperNode gives up on a request."""

GRID_HOLD_SECONDS: Final = 5.0
"""The same for a ServerApp's pull; it looks in between whether people have stopped the study."""

IDLE_LAYERS: Final = frozenset(
    {"ControlLicenseMiddleware", "ControlEventLogMiddleware", "FleetEventLogMiddleware", "RuntimeTracingMiddleware"}
)
"""What only Flower's enterprise edition fills; each layer costs every request a millisecond or two."""

CONTROL_LAYERS: Final = frozenset({"ControlSensitiveResponseMiddleware", "ControlAuthenticationMiddleware"})
"""What guards control paths, which the public listener closes."""

FLEET_LAYERS: Final = frozenset({"NodeAuthMiddleware"})
"""What guards a site's paths, which loopback closes."""

FRUGAL: Final = (("cache_size", "-4000"), ("mmap_size", "0"))
"""Instead of 64 MB for each of the pool's connections and 256 MB of mapped file: messages are read once."""

QUIET_SECONDS: Final = 0.05
"""A push is over when nothing was pushed for so long."""

MAX_BODY: Final = 64 << 20
"""Bytes of one request: three times Flower's largest chunk."""

VACUUM_SECONDS: Final = 60.0
_PAGES_AT_ONCE: Final = 20_000

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the SuperLink listens. ``certificate`` and ``key`` are PEM files, the certificate with its CA."""

    host: str
    port: int
    runtime_port: int
    database: Path
    secret: bytes
    certificate: Path
    key: Path


class Pushed:
    """Wakes the pulls that are held, once a ServerApp has pushed messages and all of their objects.

    A site that pulled a message whose objects are not there yet would wait a second before it looks again.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None

    def pushed(self) -> None:
        """Something was pushed; more may follow at once."""
        if self._waking is not None:
            self._waking.cancel()
        self._waking = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._wake)

    @property
    def busy(self) -> bool:
        """Whether a push may still be under way."""
        return self._waking is not None

    def _wake(self) -> None:
        self._waking = None
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)


def inner(app: App, to_sites: Pushed, from_sites: Pushed) -> App:
    """The service on loopback: a push of a ServerApp wakes the sites, and its empty pull waits for their answers."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(("/v1/runtime/", "/v1/control/", "/health")):
            await _answer(send, 404, b"not here")
            return
        if scope["type"] == "http" and scope["path"] == "/v1/runtime/pull-messages":
            await _held(app, scope, receive, send, from_sites, PullAppMessagesResponse, GRID_HOLD_SECONDS)
            return
        await app(scope, receive, send)
        if scope["type"] == "http" and scope["path"] in ("/v1/runtime/push-messages", "/v1/runtime/push-object"):
            to_sites.pushed()

    return call


def public(app: App, door: App, to_sites: Pushed, from_sites: Pushed) -> App:
    """What the internet sees."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith("/v1/fleet/wardround/"):
            await door(scope, receive, send)
        elif _too_large(scope):
            await _answer(send, 413, b"too large")
        elif path == "/v1/fleet/pull-messages":
            await _held(app, scope, receive, send, to_sites, PullMessagesResponse, HOLD_SECONDS)
        elif (path.startswith("/v1/fleet/") and ".." not in path) or path == "/health":
            await app(scope, receive, send)
            if path in ("/v1/fleet/push-messages", "/v1/fleet/push-object"):
                from_sites.pushed()
        else:
            client = (scope.get("client") or ("unknown", 0))[0]
            log.warning("closed path asked for from=%s path=%r", client, path[:80])
            await _answer(send, 404, b"not here")

    return call


async def _held(
    app: App, scope: Scope, receive: Receive, send: Send, pushed: Pushed, kind: type[Any], seconds: float
) -> None:
    """A pull that is asked again after each push, until there is a message in its answer or its time is over."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    gone = asyncio.ensure_future(_disconnected(receive))
    until = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            if pushed.busy:
                await pushed.wait(5.0)
            answer = await _replayed(app, scope, body)
            left = until - asyncio.get_running_loop().time()
            if left <= 0 or not _empty(answer, kind):
                break
            await asyncio.wait([asyncio.ensure_future(pushed.wait(left)), gone], return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
        for message in answer:
            await send(message)
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _replayed(app: App, scope: Scope, body: bytes) -> list[Message]:
    """What the inner service answers to the same request once more."""
    answer: list[Message] = []
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        answer.append(message)

    # The service keeps what it parsed in the scope's state, so each time gets a state of its own.
    await app({**scope, "state": dict(scope.get("state") or {})}, receive, send)
    return answer


def _empty(answer: list[Message], kind: type[Any]) -> bool:
    """Whether this is a good answer without a message in it."""
    if not answer or answer[0].get("status") != 200:
        return False
    content = b"".join(message.get("body", b"") for message in answer[1:])
    return not kind.FromString(content).messages_list


def _too_large(scope: Scope) -> bool:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return not length.isdigit() or int(length) > MAX_BODY


async def _answer(send: Send, status: int, text: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})


def prepare_database(path: Path) -> None:
    """A database whose file shrinks again when messages are gone; Flower's own never does."""
    store = sqlite3.connect(path)
    try:
        if store.execute("PRAGMA auto_vacuum").fetchone()[0] != 2:
            store.execute("PRAGMA auto_vacuum = INCREMENTAL")
            store.execute("VACUUM")
    finally:
        store.close()
    path.chmod(0o600)


def shrink_database(path: Path) -> None:
    """Give free pages back to the disk, some at a time so that nobody waits long."""
    store = sqlite3.connect(path, timeout=10.0)
    try:
        store.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        log.info("not shrunk this time reason=%s", error)
    finally:
        store.close()


async def serve(listening: Listening, door: App) -> None:
    """Serve until a signal ends the process."""
    prepare_database(listening.database)
    tell_of_stops()
    vars(sql_mixin)["SQLITE_PRAGMAS"] += FRUGAL
    app = create_app(_configuration(listening), SuperLinkLifespan)
    to_sites, from_sites = Pushed(), Pushed()
    loopback = uvicorn.Server(
        uvicorn.Config(
            inner(_without(app, IDLE_LAYERS | FLEET_LAYERS), to_sites, from_sites),
            host="127.0.0.1",
            port=listening.runtime_port,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            ws="none",
        )
    )
    outside = uvicorn.Server(
        uvicorn.Config(
            public(_without(app, IDLE_LAYERS | CONTROL_LAYERS), door, to_sites, from_sites),
            host=listening.host,
            port=listening.port,
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=str(listening.certificate),
            ssl_keyfile=str(listening.key),
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
            timeout_keep_alive=75,
            server_header=False,
            # A sender may not choose the address that it is limited by.
            proxy_headers=False,
            ws="none",
        )
    )
    tasks = [asyncio.create_task(server.serve()) for server in (loopback, outside)]
    tasks.append(asyncio.create_task(_shrinking(listening.database)))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    loopback.should_exit = outside.should_exit = True
    tasks.pop().cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _without(app: Any, layers: frozenset[str]) -> Any:
    """The same service with its state and routes, without these layers around it."""
    lean = copy.copy(app)
    lean.user_middleware = [layer for layer in app.user_middleware if layer.cls.__name__ not in layers]
    return lean


async def _shrinking(path: Path) -> None:
    while True:
        await asyncio.sleep(VACUUM_SECONDS)
        await asyncio.to_thread(shrink_database, path)


def _configuration(listening: Listening) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="127.0.0.1:0",
        health_server_address=None,
        host="127.0.0.1",
        port=listening.runtime_port,
        insecure=True,
        certificates=None,
        superexec_auth_secret=listening.secret,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(listening.database),
        isolation="process",
        runtime_dependency_install=False,
    )
