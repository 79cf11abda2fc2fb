"""Whose wrong attempts count against whom, so that nobody shuts another person out by typing her name.

A browser in which an account has logged in before keeps a mark, and its wrong attempts are counted apart (the device
cookies of OWASP's Authentication Cheat Sheet): while strangers make a name wait, its owner's own browser does not. A
mark opens nothing. All other attempts are limited by address and in all besides; these two counts live in memory.
"""

import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final, TypeVar

from fastapi import Request
from sqlalchemy import Engine
from starlette.responses import Response

from wardround.console.web.accounts import Locked
from wardround.console.web.store import secret

BROWSER_COOKIE: Final = "__Host-wardround-browser"
BROWSER_DAYS: Final = 90

WINDOW: Final = 900.0
"""Seconds that a wrong attempt counts against its address."""

MOST_OF_ADDRESS: Final = 30
MOST_IN_ALL: Final = 300
"""Wrong attempts in ``WINDOW``. Behind a proxy all browsers have its address, and share the first."""

_T = TypeVar("_T")


class Browsers:
    """The marks of browsers that an account has logged in from. The database keeps one secret and no list."""

    def __init__(self, engine: Engine) -> None:
        self._secret = secret(engine, "browser")

    def mark(self, account: str) -> str:
        """A new mark, after both factors were right."""
        nonce = secrets.token_urlsafe(16)
        return f"{nonce}.{self._sign(nonce, account)}"

    def known(self, mark: str | None, account: str) -> str | None:
        """What this browser's attempts at ``account`` are counted under; None for a browser without its mark."""
        nonce, _, signed = (mark or "")[:200].partition(".")
        right = hmac.compare_digest(signed.encode(), self._sign(nonce, account).encode())
        return nonce if nonce and right else None

    def _sign(self, nonce: str, account: str) -> str:
        return hmac.new(self._secret, f"{nonce} {account}".encode("utf-8", "surrogatepass"), sha256).hexdigest()


class Limits:
    """Wrong attempts of the last quarter of an hour, by address. ``clock``: seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()

    def locked(self, address: str) -> Locked | None:
        """How long this address has to wait before anything that it types is looked at."""
        with self._lock:
            now = self._clock()
            while self._wrong and self._wrong[0][0] <= now - WINDOW:
                self._wrong.popleft()
            own = [at for at, of in self._wrong if of == network_of(address)]
            frees = []
            if len(own) >= MOST_OF_ADDRESS:
                frees.append(own[-MOST_OF_ADDRESS])
            if len(self._wrong) >= MOST_IN_ALL:
                frees.append(self._wrong[-MOST_IN_ALL][0])
            return Locked(max(1, ceil(max(frees) + WINDOW - now))) if frees else None

    def failed(self, address: str) -> None:
        with self._lock:
            self._wrong.append((self._clock(), network_of(address)))


def network_of(address: str) -> str:
    """An IPv6 host has a whole /64 to itself; an IPv4 address is one."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else str(found)


def attempt(request: Request, account: str, look: Callable[[str | None], _T | Locked | None]) -> _T | Locked | None:
    """Let ``look`` examine what this browser typed for ``account``, unless it has to wait; None: it was wrong.

    ``look`` is given what the browser's attempts are counted under, or None for a stranger's.
    """
    shared = request.app.state.console
    browser = shared.browsers.known(request.cookies.get(BROWSER_COOKIE), account)
    address = request.client.host if request.client is not None else ""
    locked: Locked | None = shared.limits.locked(address) if browser is None else None
    if locked is not None:
        return locked
    answer = look(browser)
    if answer is None and browser is None:
        shared.limits.failed(address)
    return answer


def remember(request: Request, answer: Response, account: str) -> None:
    """Mark the browser that ``answer`` goes to as one that ``account`` has logged in from."""
    mark = request.app.state.console.browsers.mark(account)
    days = BROWSER_DAYS * 24 * 3600
    answer.set_cookie(BROWSER_COOKIE, mark, max_age=days, secure=True, httponly=True, samesite="strict", path="/")
