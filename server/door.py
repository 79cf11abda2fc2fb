"""The two endpoints that a site asks before Flower knows it: join, and the roster in force. An ASGI application.

::

    POST /v1/fleet/wardround/join     a join request; its answer, or why not
    GET  /v1/fleet/wardround/roster   the roster in force, as its canonical bytes

Whoever finds the port may ask here, so requests are small and few, and a refusal is one word of JSON that repeats
nothing of what was sent.
"""

import asyncio
import ipaddress
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wardround.protocol.errors import WardroundError
from wardround.protocol.invitation import JOIN_PATH, MAX_JOIN_BYTES, ROSTER_PATH, JoinAnswer, JoinRequest
from wardround.server.enrolment import Enrolment, Verdict
from wardround.server.folder import CoordinatorFolder, utc_now

PER_ADDRESS: Final = 30
IN_TOTAL: Final = 300
"""Requests in any minute."""

BODY_SECONDS: Final = 10.0

_WINDOW: Final = 60.0
_STATUS: Final = {Verdict.MALFORMED: 400, Verdict.BUSY: 503}

Asgi: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RateLimit:
    """Counts what was let through in the last minute, by address and in total; what was refused does not count.

    An IPv6 address stands for its network of 64 bits, which one caller usually has whole.
    """

    per_address: int = PER_ADDRESS
    in_total: int = IN_TOTAL
    _all: deque[tuple[float, str]] = field(default_factory=deque)
    _counts: dict[str, int] = field(default_factory=dict)

    def allows(self, address: str, now: float) -> bool:
        """Whether one more request from ``address`` may pass at ``now`` (seconds of any steady clock)."""
        while self._all and self._all[0][0] <= now - _WINDOW:
            _, old = self._all.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]
        caller = _caller(address)
        if len(self._all) >= self.in_total or self._counts.get(caller, 0) >= self.per_address:
            return False
        self._all.append((now, caller))
        self._counts[caller] = self._counts.get(caller, 0) + 1
        return True


def door(folder: CoordinatorFolder, clock: Callable[[], datetime] = utc_now, limit: RateLimit | None = None) -> Asgi:
    """The application for one coordinator."""
    enrolment, limit = Enrolment(folder, clock), RateLimit() if limit is None else limit

    def passes(request: Request) -> bool:
        allowed = limit.allows(request.client.host if request.client else "unknown", time.monotonic())
        if not allowed:
            log.warning("slowed down from=%s", _from(request))
        return allowed

    async def join(request: Request) -> Response:
        if not passes(request):
            return _refusal("slow_down", 429)
        body = await _body(request)
        if isinstance(body, Response):
            return body
        try:
            asked = JoinRequest.model_validate_json(body)
        except ValidationError:
            return _refusal(Verdict.MALFORMED, 400)
        try:
            answer = await run_in_threadpool(enrolment.join, asked)
        except WardroundError as error:
            log.error("join failed error=%r", error.message)
            return _refusal("unavailable", 503)
        if isinstance(answer, JoinAnswer):
            log.info("joined site=%s from=%s", asked.site, _from(request))
            return JSONResponse(answer.model_dump(mode="json"))
        log.warning("join refused site=%s from=%s reason=%s", asked.site, _from(request), answer)
        return _refusal(answer, _STATUS.get(answer, 403))

    async def roster(request: Request) -> Response:
        if not passes(request):
            return _refusal("slow_down", 429)
        try:
            held = await run_in_threadpool(enrolment.roster)
        except WardroundError as error:
            log.error("roster failed error=%r", error.message)
            return _refusal("unavailable", 503)
        if held is None:
            return _refusal("none", 404)
        return Response(held.canonical, media_type="application/json")

    app = Starlette(
        routes=[Route(JOIN_PATH, join, methods=["POST"]), Route(ROSTER_PATH, roster, methods=["GET"])],
        exception_handlers={HTTPException: _no_such},
    )
    app.router.redirect_slashes = False
    return app


async def _no_such(_request: Request, error: Exception) -> Response:
    return _refusal("not_here", error.status_code if isinstance(error, HTTPException) else 404)


async def _body(request: Request) -> bytes | Response:
    """The body, or the refusal of one that is too large or too slow; no more than the limit is ever held."""
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_JOIN_BYTES:
                    return _refusal("too_large", 413)
    except TimeoutError:
        return _refusal("too_slow", 408)
    except ClientDisconnect:
        return _refusal(Verdict.MALFORMED, 400)
    return body


def _refusal(word: str, status: int) -> Response:
    # The connection is closed: what is left of a body that was not read is no next request.
    return JSONResponse({"error": str(word)}, status, headers={"connection": "close"})


def _from(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _caller(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
