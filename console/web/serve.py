"""Serve a console: uvicorn on this machine alone, or with TLS on an address that others reach."""

import ipaddress
import logging
import logging.handlers
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from wardround.console.web.app import make_app
from wardround.console.web.roles import Face
from wardround.console.web.security import Names
from wardround.protocol.errors import Unavailable, UsageError

PORT: Final = 8640
LOG_BYTES: Final = 5_000_000
_MOST_CONNECTIONS: Final = 200
HEAD_SECONDS: Final = 15.0
"""From a connection to the head of its first request, and from a head's first byte to its last."""


class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, which would wait for a request for ever: 200 silent connections would shut everybody out."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun:
            self._late.cancel()
        elif self._late.cancelled():
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)


class Announced(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listens()


def serve(
    folder: Path,
    face: Face,
    listen: str = "127.0.0.1",
    port: int = PORT,
    certificate: Path | None = None,
    key: Path | None = None,
    origins: tuple[str, ...] = (),
    listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        listening: told the console's address once it takes requests, and not before.
        origins: further addresses as browsers show them, for example https://console.example.org
    Raises:
        UsageError: an address that others reach without a certificate, or files that are none.
        Unavailable: the port is taken.
    """
    tls = check_tls(listen, certificate, key)
    app = make_app(
        folder,
        face,
        Names.of((listen, "127.0.0.1", "localhost"), port, origins, tls=tls),
        tls=tls,
        certificate=certificate,
    )
    log_to(folder)
    config = uvicorn.Config(
        app,
        host=listen,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=Impatient,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
    )
    shown = f"[{listen}]" if ":" in listen else listen
    server = Announced(config, lambda: listening(f"{'https' if tls else 'http'}://{shown}:{port}/"))
    try:
        with suppress(KeyboardInterrupt):  # the server has ended in order before it passes Ctrl-C on
            server.run()
    except SystemExit:
        raise Unavailable(
            f"the console cannot listen at {listen}:{port}", "another program may use the port: give --port"
        ) from None


def check_tls(listen: str, certificate: Path | None, key: Path | None) -> bool:
    """Whether the console speaks TLS. Raises UsageError where it must and cannot."""
    if (certificate is None) is not (key is None):
        raise UsageError("a certificate and its key belong together", "give both --certificate and --key")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise UsageError(f"there is no file '{file}'", "give PEM files, the certificate with its chain")
    try:
        own = ipaddress.ip_address(listen).is_loopback
    except ValueError:
        raise UsageError(f"'{listen}' is no address of this machine", "for example: --listen 10.0.0.5") from None
    if not own and certificate is None:
        raise UsageError(
            f"others reach {listen}, so passwords would cross the network in the clear",
            "give --certificate and --key, or listen at 127.0.0.1 behind a proxy that speaks TLS",
        )
    return certificate is not None


def log_to(folder: Path) -> None:
    """The console's log: a file of at most five times ``LOG_BYTES`` in the folder."""
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(folder / "logs" / "console.log", maxBytes=LOG_BYTES, backupCount=4)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "alembic", "sqlalchemy", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
