"""Sessions: a random cookie, of which the database knows the hash only.

A session begins when the password was right, and is complete after the second factor; at both steps it gets a new
name, so nobody can prepare one for another person. It ends after a while without a request, and after a working day.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, delete, insert, or_, select, update

from wardround.console.web.roles import Role
from wardround.console.web.store import accounts, secret, sessions

COOKIE: Final = "__Host-wardround"
"""The prefix makes browsers take it from this host only, over TLS or on this machine, for the whole of it."""

BEFORE_COOKIE: Final = "__Host-wardround-before"
"""Ties the forms that are shown before a login to the browser that asked for them."""

IDLE_SECONDS: Final = 20 * 60.0
MOST_SECONDS: Final = 10 * 3600.0
SECOND_FACTOR_SECONDS: Final = 5 * 60.0
_SEEN_EVERY: Final = 30.0
"""A request notes that the person is there at most so often: a page with ten files is no ten writes."""

MOST_OF_ONE: Final = 5
"""Sessions of one account; a new one ends the oldest."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who is logged in. ``complete``: with the second factor too. ``csrf``: what this session's forms carry."""

    key: str
    account: str
    role: Role
    language: str | None
    complete: bool
    csrf: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that goes on: when it began and was last used, in seconds since the epoch. ``this``: the asker's."""

    begun_at: float
    seen_at: float
    this: bool


class Sessions:
    """The sessions of one console. ``clock``: seconds since the epoch."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._secret = secret(engine, "csrf")

    def begin(self, account: str, *, complete: bool, instead_of: Session | None = None) -> str:
        """A new session, and the value of its cookie; the one that it replaces ends."""
        value, now = secrets.token_urlsafe(32), self._clock()
        with self._engine.begin() as store:
            store.execute(delete(sessions).where(sessions.c.created_at < now - MOST_SECONDS))
            if instead_of is not None:
                store.execute(delete(sessions).where(sessions.c.hash == instead_of.key))
            newest = select(sessions.c.hash).where(sessions.c.account == account)
            newest = newest.order_by(sessions.c.created_at.desc()).limit(MOST_OF_ONE - 1)
            store.execute(delete(sessions).where(sessions.c.account == account, sessions.c.hash.not_in(newest)))
            row = {"hash": _hash(value), "account": account, "complete": complete, "created_at": now, "seen_at": now}
            store.execute(insert(sessions).values(**row))
        return value

    def find(self, value: str | None, *, active: bool = True) -> Session | None:
        """The session of a cookie's value, or None. ``active``: the person did something, so it stays awake."""
        if not value or len(value) > 100:
            return None
        now, key = self._clock(), _hash(value)
        with self._engine.begin() as store:
            row = store.execute(
                select(sessions, accounts.c.role, accounts.c.language)
                .join(accounts, accounts.c.name == sessions.c.account)
                .where(sessions.c.hash == key, accounts.c.disabled.is_(False))
            ).one_or_none()
            if row is None:
                return None
            if _over(row.created_at, row.seen_at, row.complete, now):
                store.execute(delete(sessions).where(sessions.c.hash == key))
                return None
            if active and now - row.seen_at > _SEEN_EVERY:
                store.execute(update(sessions).where(sessions.c.hash == key).values(seen_at=now))
        return Session(key, row.account, Role(row.role), row.language, row.complete, self.token(f"session {value}"))

    def end(self, session: Session) -> None:
        """Log out: the cookie is worth nothing from here on."""
        with self._engine.begin() as store:
            over = sessions.c.created_at < self._clock() - MOST_SECONDS
            store.execute(delete(sessions).where(or_(sessions.c.hash == session.key, over)))

    def of(self, session: Session) -> list[Begun]:
        """The sessions of the same account that go on, the newest first."""
        asked = select(sessions).where(sessions.c.account == session.account, sessions.c.complete)
        with self._engine.begin() as store:
            rows = store.execute(asked.order_by(sessions.c.created_at.desc())).all()
        now = self._clock()
        going = [row for row in rows if not _over(row.created_at, row.seen_at, row.complete, now)]
        return [Begun(row.created_at, row.seen_at, row.hash == session.key) for row in going]

    def end_others(self, session: Session) -> int:
        """Log every other browser of this account out; returns how many sessions ended."""
        others = delete(sessions).where(sessions.c.account == session.account, sessions.c.hash != session.key)
        with self._engine.begin() as store:
            return int(store.execute(others).rowcount)

    def token(self, of: str) -> str:
        """The CSRF token of a session, or of a browser that has none yet: nobody can make it without our secret."""
        return hmac.new(self._secret, of.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _over(created_at: float, seen_at: float, complete: bool, now: float) -> bool:
    longest = MOST_SECONDS if complete else SECOND_FACTOR_SECONDS
    return now - created_at > longest or now - seen_at > IDLE_SECONDS


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
