"""The way to the coordinator, step by step, as the SuperNode goes it: name, port, proxy, TLS, answer, clock.

A step that fails ends the way: what lies behind it is not examined, so that one fault is one finding.
"""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Final

from wardround.client.doctor.examined import Examined
from wardround.client.doctor.route import Route, Stopped, plain_reason
from wardround.client.doctor.tls import Pinned, all_right, handshake, leaf_of, why_refused
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.conf.said import said

SECONDS: Final = 10.0

AHEAD_WARNING: Final = 3.0
AHEAD_FAILED: Final = 5.0
"""Seconds. Flower refuses the requests of a site whose clock is further ahead, and its SuperNode ends."""

BEHIND_WARNING: Final = 60.0
BEHIND_FAILED: Final = 300.0
"""Seconds. Flower refuses a request that was signed so long ago."""

_SET_CLOCK: Final = said("Have the clock set by NTP, for example: timedatectl set-ntp true.")


def check_network(
    examined: Examined, clock: Callable[[], datetime] = lambda: datetime.now(UTC), seconds: float = SECONDS
) -> Iterator[Finding]:
    """Examine the way to the coordinator; nothing when none is known.

    ``seconds``: until silence counts as an answer.
    """
    if examined.host is None:
        return
    try:
        yield from _walked(examined, clock, seconds)
    except Stopped as stopped:
        yield stopped.finding


def _walked(examined: Examined, clock: Callable[[], datetime], seconds: float) -> Iterator[Finding]:
    route = Route.of(examined, seconds)
    yield ok("dns", route.look_up())
    route.connect().close()
    yield ok(
        "connection", said("Somebody listens at %(where)s.", where=said("the proxy") if route.via else route.where)
    )
    if route.via is not None:
        route.tunnelled().close()
        yield ok("proxy", said("The proxy lets this site through to %(where)s.", where=route.where))
    ca = _pinned(examined)
    try:
        connection = handshake(route, ca.context())
    except ssl.SSLCertVerificationError as error:
        refusal = why_refused(route, ca, clock(), error.verify_message)
        yield from refusal.findings
        if not refusal.may_ask:
            return
        # The clock may be the reason why a good certificate looks expired: ask for the time all the same.
        connection = handshake(route, ca.context(any_time=True))
    else:
        yield ok("tls", "TLS comes through whole.")
        yield from all_right(route, leaf_of(connection), ca.certificate, clock())
    with connection:
        yield from _asked(route, connection, clock)


def _pinned(examined: Examined) -> Pinned:
    try:
        return Pinned.parse(b"" if examined.ca is None else examined.ca.read_bytes())
    except (OSError, ValueError, IndexError, ssl.SSLError):
        raise Stopped(
            failed(
                "tls",
                "The link folder has no CA certificate of the coordinator that can be read.",
                "Put ca.pem back from the backup of the link folder, or join again with a new code.",
            )
        ) from None


def _asked(route: Route, connection: ssl.SSLSocket, clock: Callable[[], datetime]) -> Iterator[Finding]:
    """Ask the public listener how it is, and what time it is there."""
    request = f"GET /health HTTP/1.1\r\nHost: {route.where}\r\nUser-Agent: wardround\r\nConnection: close\r\n\r\n"
    begun = clock()
    try:
        connection.sendall(request.encode("ascii"))
        answer = HTTPResponse(connection, method="GET")
        answer.begin()
        ended, status, date = clock(), answer.status, answer.getheader("Date")
    except (OSError, HTTPException) as error:
        how = plain_reason(error) if isinstance(error, OSError) else said("its answer is not HTTP")
        yield failed(
            "coordinator",
            said("The coordinator takes the connection and gives no answer: %(how)s.", how=how),
            "Tell the operator of the coordinator.",
        )
        return
    if status == 200:
        yield ok("coordinator", "The coordinator answers.")
    else:
        yield failed(
            "coordinator",
            said("The coordinator's machine answers that it is not well (status %(status)s).", status=status),
            "Ask the operator whether the coordinator runs behind this port.",
        )
    yield skew(date, begun + (ended - begun) / 2)


def skew(date: str | None, here: datetime) -> Finding:
    """The clock here against the header ``Date`` of an answer, which is cut to whole seconds."""
    try:
        there = parsedate_to_datetime(date or "")
        if there.tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, TypeError):
        return warning("clock", "The coordinator does not say what time it is.", _SET_CLOCK)
    ahead = (here - there).total_seconds() - 0.5
    seconds = f"{abs(ahead):.0f}"
    if ahead > 0:
        size = said("%(seconds)s s ahead of the coordinator's", seconds=seconds)
    else:
        size = said("%(seconds)s s behind the coordinator's", seconds=seconds)
    if ahead > AHEAD_FAILED:
        return failed(
            "clock",
            said(
                "This machine's clock is %(size)s: beyond %(most)s s the coordinator refuses this site.",
                size=size,
                most=f"{AHEAD_FAILED:.0f}",
            ),
            _SET_CLOCK,
        )
    if ahead < -BEHIND_FAILED:
        return failed(
            "clock",
            said(
                "This machine's clock is %(size)s: beyond %(most)s s the coordinator refuses this site.",
                size=size,
                most=f"{BEHIND_FAILED:.0f}",
            ),
            _SET_CLOCK,
        )
    if ahead > AHEAD_WARNING or ahead < -BEHIND_WARNING:
        return warning("clock", said("This machine's clock is %(size)s.", size=size), _SET_CLOCK)
    return ok("clock", "This machine's clock agrees with the coordinator's.")
