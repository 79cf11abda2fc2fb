"""What every request passes before a page sees it: which name it asks, where it comes from, how long it is.

And what every answer carries: headers under which a browser runs nothing that is not ours, and keeps nothing. The
checks stand around the whole application, so no page can forget them; ``guards`` adds what needs a session.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from starlette.datastructures import Headers, MutableHeaders

from wardround.protocol.errors import UsageError

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE: Final = frozenset({"GET", "HEAD"})
ALLOWED_METHODS: Final = SAFE | {"POST"}
MOST_BYTES: Final = 1 << 20
"""Of a request's body."""

BODY_SECONDS: Final = 30.0
"""Until a request's body is whole; who sends one slower holds a connection that others need."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HTTPS_ONLY: Final = "max-age=31536000"
STATIC: Final = "/static/"
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")

log = logging.getLogger("wardround.console.access")


@dataclass(frozen=True, slots=True)
class Names:
    """Under which names the console may be asked: ``origins`` as a browser writes them: scheme, name and port."""

    origins: frozenset[str]

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(origin.split("://", 1)[1] for origin in self.origins)

    @classmethod
    def of(cls, names: "tuple[str, ...]", port: int, more: "tuple[str, ...]" = (), *, tls: bool) -> "Names":
        """All names at one port (the scheme's own port may be left out, as browsers do), and ``more`` whole origins.

        Raises:
            UsageError: one of ``more`` is no origin.
        """
        for origin in more:
            if _ORIGIN.fullmatch(origin) is None:
                raise UsageError("this is no address of a console", "for example: https://console.example.org")
        scheme, own = ("https", 443) if tls else ("http", 80)
        bracketed = [f"[{name}]" if ":" in name else name.lower() for name in names]
        origins = {f"{scheme}://{name}:{port}" for name in bracketed}
        if port == own:
            origins |= {f"{scheme}://{name}" for name in bracketed}
        return cls(frozenset(origins | {origin.lower() for origin in more}))


class Refused(Exception):
    """The request is answered with the page of an error; ``status`` says with which."""

    def __init__(self, status: int, after: int | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.after = after


class Guard:
    """Wraps the application. ``refuse`` makes the page of an error; ``tls``: answers say HTTPS only."""

    def __init__(self, app: Asgi, names: Names, refuse: Callable[[Scope, int], Asgi], *, tls: bool = False) -> None:
        self._app = app
        self._names = names
        self._refuse = refuse
        self._tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(scope, MutableHeaders(scope=message))
            await send(message)

        fault = self._fault(scope)
        try:
            if fault is not None:
                await self._refuse(scope, fault)(scope, receive, answer)
            else:
                await self._app(scope, _bounded(receive), answer)
        finally:
            _note(scope, status, time.monotonic() - began)

    def _fault(self, scope: Scope) -> int | None:
        """The status of the error that this request is answered with, or None."""
        headers, method = Headers(scope=scope), scope["method"]
        if len(headers.getlist("host")) != 1 or headers["host"].lower() not in self._names.hosts:
            return 400
        if method not in ALLOWED_METHODS:
            return 405
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return 413
        return None if method in SAFE or self._ours(headers) else 403

    def _ours(self, headers: Headers) -> bool:
        """Whether a request that may change something comes from one of our own pages.

        Pages send no referrer, and so a browser sends the origin ``null`` with their forms. Then it must say itself
        that the request stays on this site: no page can set Sec-Fetch-Site, and one in a sandbox is another site.
        """
        origin, site = headers.get("origin", "null").lower(), headers.get("sec-fetch-site")
        if site not in (None, "same-origin"):
            return False
        return site == "same-origin" if origin == "null" else origin in self._names.origins

    def _add_headers(self, scope: Scope, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers[name] = value
        if self._tls:
            headers["strict-transport-security"] = HTTPS_ONLY
        headers["cache-control"] = "no-cache" if scope["path"].startswith(STATIC) else "no-store"


def _bounded(receive: Receive) -> Receive:
    """A body without a length, or one that takes too long, is cut off where a page would no longer look at it."""
    seen, whole, end = 0, False, time.monotonic() + BODY_SECONDS

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise Refused(408) from None
        whole = not message.get("more_body", False)
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise Refused(413)
        return message

    return bounded


def _note(scope: Scope, status: int, seconds: float) -> None:
    """One line of the access log: the route's own template, never a path or a query that somebody typed."""
    route = getattr(scope.get("route"), "path", None)
    shown = route if isinstance(route, str) else "-"
    role = scope.get("wardround.role", "-")
    log.info("%s %s %d %.0f ms role=%s", scope["method"][:8], shown, status, 1000 * seconds, role)
