"""Accounts of a console: passwords (Argon2id), second factors (TOTP, RFC 6238), and what follows on wrong ones.

An unknown name, a wrong password and a disabled account take the same time and give the same answer. A wrong attempt
counts against the name that was typed, whether or not it is an account, and the wait grows with every further one.
"""

import hashlib
import hmac
import math
import re
import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from wardround.conf.said import said
from wardround.console.web.roles import ROLES, Face, Role
from wardround.console.web.store import accounts, failures, history, sessions
from wardround.protocol.errors import UsageError

LEAST_PASSWORD: Final = 12
MOST_PASSWORD: Final = 200
"""Characters; a longer text is not even hashed."""

FREE_ATTEMPTS: Final = 5
"""Wrong attempts in a row before a name has to wait."""

FIRST_WAIT: Final = 30.0
LONGEST_WAIT: Final = 900.0
"""Seconds; each further wrong attempt doubles the wait. No name is shut for good: that would shut its owner out."""

FORGOTTEN_AFTER: Final = 86_400.0
"""Seconds after which wrong attempts are forgotten."""

MOST_NAMES: Final = 10_000
"""Names with wrong attempts that are remembered; a stranger fills no disk with invented ones."""

STEP_SECONDS: Final = 30
_STEPS: Final = (-1, 0, 1)
"""Clocks of telephones may be off by one step."""

MOST_HISTORY: Final = 50
"""What happened to one account, the newest; more is forgotten."""

_HASHES: Final = 2
"""Passwords hashed at a time: each takes 64 MiB."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may log in. ``language``: as chosen, or None."""

    name: str
    role: Role
    language: str | None
    disabled: bool
    created_at: float
    last_login: float | None


@dataclass(frozen=True, slots=True)
class Locked:
    """Too many wrong attempts: none is looked at for ``seconds``."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an account. ``known``: in a browser that it had logged in from before."""

    at: float
    what: str
    known: bool


class Accounts:
    """The accounts of one console.

    Args:
        clock: seconds since the epoch.
        hasher: Argon2id with its parameters; the library's default is RFC 9106's second choice.
    """

    def __init__(
        self,
        engine: Engine,
        face: Face,
        clock: Callable[[], float] = time.time,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._engine = engine
        self._face = face
        self._clock = clock
        self._hasher = PasswordHasher() if hasher is None else hasher
        self._hashing = threading.BoundedSemaphore(_HASHES)
        self._nobody = self._hasher.hash("nobody has this password")

    def add(self, name: str, role: str, password: str) -> str:
        """A new account; returns its TOTP secret (base32), which is shown once.

        Raises:
            UsageError: the name, the role or the password will not do, or the name is taken.
        """
        known = ROLES[self._face]
        if NAME.fullmatch(name) is None:
            raise UsageError("this is no name for an account", "a-z, 0-9, '.' and '-', at most 40 characters")
        if role not in known:
            raise UsageError(f"there is no role '{role}' here", f"roles: {', '.join(known)}")
        check_password(name, password)
        secret = pyotp.random_base32()
        row = {"name": name, "role": role, "password": self._hash(password), "totp_secret": secret}
        try:
            with self._engine.begin() as store:
                store.execute(insert(accounts).values(**row, created_at=self._clock()))
        except IntegrityError:
            raise UsageError(f"there is an account '{name}' already", "choose another name, or reset it") from None
        return secret

    def all(self) -> list[Account]:
        """Every account, by name."""
        with self._engine.begin() as store:
            rows = store.execute(select(accounts).order_by(accounts.c.name)).all()
        return [_account(row) for row in rows]

    def get(self, name: str) -> Account | None:
        with self._engine.begin() as store:
            row = store.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
        return None if row is None else _account(row)

    def disable(self, name: str) -> None:
        """The account may not log in any more, and is logged out at once. Raises UsageError for an unknown one."""
        self._change(name, "disabled", disabled=True)

    def reset_totp(self, name: str) -> str:
        """A new TOTP secret, which is shown once; the account is enabled and logged out. The password stays."""
        secret = pyotp.random_base32()
        self._change(name, "reset", totp_secret=secret, totp_step=0, disabled=False)
        return secret

    def choose_language(self, name: str, language: str) -> None:
        with self._engine.begin() as store:
            store.execute(update(accounts).where(accounts.c.name == name).values(language=language))

    def history(self, name: str, most: int = MOST_HISTORY) -> list[Event]:
        """What happened to an account, the newest first."""
        asked = select(history).where(history.c.account == name).order_by(history.c.id.desc()).limit(most)
        with self._engine.begin() as store:
            return [Event(row.at, row.what, row.known) for row in store.execute(asked).all()]

    def check_password(self, name: str, password: str, browser: str | None = None) -> Account | Locked | None:
        """The account whose password this is; None for any other name or password, for either reason.

        ``browser``: what wrong attempts of a known browser are counted under; None: against the name.
        """
        with self._engine.begin() as store:
            if (locked := self._locked(store, name, browser)) is not None:
                return locked
            row = store.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
        right = self._verify(self._nobody if row is None else row.password, password)
        if row is None or not right or row.disabled:
            with self._engine.begin() as store:
                self._failed(store, name, browser)
                _note(store, "" if row is None else name, "wrong password", browser, self._clock())
            return None
        return _account(row)

    def check_code(
        self, name: str, code: str, browser: str | None = None, *, login: bool = False
    ) -> Account | Locked | None:
        """The account whose TOTP code this is now. A code is taken once: what was typed can be overheard."""
        typed = re.sub(r"\s", "", code)
        with self._engine.begin() as store:
            if (locked := self._locked(store, name, browser)) is not None:
                return locked
            row = store.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
            step = None if row is None or row.disabled else _step_of(row.totp_secret, typed, self._clock())
            if row is None or step is None or step <= row.totp_step:
                self._failed(store, name, browser)
                _note(store, "" if row is None else name, "wrong code", browser, self._clock())
                return None
            store.execute(update(accounts).where(accounts.c.name == name).values(totp_step=step))
            store.execute(delete(failures).where(failures.c.name == _key(name, browser)))
            if login:
                store.execute(update(accounts).where(accounts.c.name == name).values(last_login=self._clock()))
                _note(store, name, "login", browser, self._clock())
        return _account(row)

    def change_password(
        self, name: str, old: str, code: str, new: str, browser: str | None = None
    ) -> Account | Locked | None:
        """Give the account a new password, for the old one and a code; every session of the account ends.

        None when either was wrong: the answer does not say which. Nothing is changed then, and it counts as an attempt.

        Raises:
            UsageError: the new password will not do; nothing was looked at.
        """
        check_password(name, new)
        if _normal(new) == _normal(old):
            raise UsageError(said("the new password is the old one"), said("choose another one"))
        answer = self.check_password(name, old, browser)
        if isinstance(answer, Account):
            answer = self.check_code(name, code, browser)
        if not isinstance(answer, Account):
            return answer
        hashed = self._hash(new)
        with self._engine.begin() as store:
            store.execute(update(accounts).where(accounts.c.name == name).values(password=hashed))
            store.execute(delete(sessions).where(sessions.c.account == name))
            _note(store, name, "password changed", browser, self._clock())
        return answer

    def _change(self, name: str, what: str, **values: object) -> None:
        with self._engine.begin() as store:
            changed = store.execute(update(accounts).where(accounts.c.name == name).values(**values)).rowcount
            store.execute(delete(sessions).where(sessions.c.account == name))
            store.execute(delete(failures).where(failures.c.name == _key(name)))
            if changed:
                _note(store, name, what, None, self._clock())
        if not changed:
            raise UsageError(f"there is no account '{name}'", "the command 'account list' names them")

    def _hash(self, password: str) -> str:
        with self._hashing:
            return self._hasher.hash(_normal(password))

    def _verify(self, stored: str, password: str) -> bool:
        with self._hashing:
            try:
                return self._hasher.verify(stored, _normal(password[:MOST_PASSWORD]))
            except (VerificationError, InvalidHashError):
                return False

    def _locked(self, store: Connection, name: str, browser: str | None) -> Locked | None:
        until = store.execute(select(failures.c.locked_until).where(failures.c.name == _key(name, browser))).scalar()
        left = 0.0 if until is None else until - self._clock()
        return Locked(math.ceil(left)) if left > 0 else None

    def _failed(self, store: Connection, name: str, browser: str | None) -> None:
        now, key = self._clock(), _key(name, browser)
        store.execute(delete(failures).where(failures.c.at < now - FORGOTTEN_AFTER))
        before = store.execute(select(failures.c.count).where(failures.c.name == key)).scalar() or 0
        count = before + 1
        wait = 0.0 if count < FREE_ATTEMPTS else min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - FREE_ATTEMPTS, 10))
        store.execute(delete(failures).where(failures.c.name == key))
        if store.execute(select(func.count()).select_from(failures)).scalar_one() >= MOST_NAMES:
            oldest = select(failures.c.name).order_by(failures.c.at).limit(1).scalar_subquery()
            store.execute(delete(failures).where(failures.c.name == oldest))
        store.execute(insert(failures).values(name=key, count=count, locked_until=now + wait, at=now))


def check_password(name: str, password: str) -> None:
    """Raise UsageError for a password that is too short, too long, or its account's name."""
    if not LEAST_PASSWORD <= len(_normal(password)) <= MOST_PASSWORD:
        raise UsageError(
            said("a password has %(least)s to %(most)s characters", least=LEAST_PASSWORD, most=MOST_PASSWORD),
            said("four words that you can remember will do"),
        )
    if name in password.lower() and len(password) < len(name) + LEAST_PASSWORD:
        raise UsageError(said("the password is little more than the account's name"), said("choose words of your own"))


def provisioning_uri(account: str, secret: str, issuer: str) -> str:
    """What an authenticator app reads from a QR code."""
    return pyotp.TOTP(secret, interval=STEP_SECONDS).provisioning_uri(name=account, issuer_name=issuer)


def _step_of(secret: str, code: str, now: float) -> int | None:
    """The time step of which ``code`` is; every step is compared, in constant time."""
    current, found = int(now // STEP_SECONDS), None
    codes = pyotp.HOTP(secret)
    for step in (current + off for off in _STEPS):
        if hmac.compare_digest(codes.at(step).encode(), code.encode()):
            found = step
    return found


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _key(name: str, browser: str | None = None) -> str:
    counted = name if browser is None else f"{name} in browser {browser}"
    return hashlib.sha256(counted.encode("utf-8", "surrogatepass")).hexdigest()


def _note(store: Connection, account: str, what: str, browser: str | None, now: float) -> None:
    """Write down what happened. A name that is no account costs the same, so the time tells nothing."""
    store.execute(insert(history).values(account=account, at=now, what=what, known=browser is not None))
    newest = select(history.c.id).where(history.c.account == account).order_by(history.c.id.desc()).limit(MOST_HISTORY)
    store.execute(delete(history).where(history.c.account == account, history.c.id.not_in(newest)))


def _account(row: object) -> Account:
    values = row._mapping  # type: ignore[attr-defined]
    return Account(
        values["name"],
        Role(values["role"]),
        values["language"],
        values["disabled"],
        values["created_at"],
        values["last_login"],
    )
