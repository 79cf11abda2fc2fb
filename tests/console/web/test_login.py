"""Who gets in: two factors, no second use of a code, growing waits, and sessions that end and cannot be prepared."""

import hashlib
import sqlite3
from typing import Any

import pyotp
import pytest

from wardround.console.web.accounts import FIRST_WAIT, FREE_ATTEMPTS, LONGEST_WAIT
from wardround.console.web.sessions import COOKIE, IDLE_SECONDS, MOST_SECONDS, SECOND_FACTOR_SECONDS
from wardround.protocol.errors import UsageError


@pytest.fixture
def client(new_world: Any, helpers: Any) -> Any:
    with helpers.new_client(new_world.app()) as made:
        yield made


def first(client: Any, helpers: Any, name: str, password: str) -> Any:
    token = helpers.csrf(client, "/login")
    return client.post("/login", data={"name": name, "password": password, "csrf": token})


def second(client: Any, helpers: Any, code: str) -> Any:
    return client.post("/login/code", data={"code": code, "csrf": helpers.csrf(client, "/login/code")})


def code_now(world: Any) -> str:
    """The officer's code at this moment, whether or not it was taken already."""
    return pyotp.TOTP(world.secrets["officer"]).at(int(world.clock.now))


def inside(client: Any) -> bool:
    """Whether the overview is shown to this browser, and not the login."""
    return bool(client.get("/", follow_redirects=False).status_code == 200)


def test_password_and_code_together_open_the_pages(client: Any, new_world: Any, helpers: Any) -> None:
    assert not inside(client)
    helpers.log_in(client, new_world, "officer")
    assert inside(client)


def test_a_password_alone_opens_nothing(client: Any, helpers: Any) -> None:
    assert first(client, helpers, "officer", helpers.PASSWORD).url.path == "/login/code"
    assert client.get("/", follow_redirects=False).status_code == 303
    assert client.get("/live", follow_redirects=False).status_code == 303


def test_an_unknown_name_a_wrong_password_and_a_disabled_account_get_the_same_answer(
    client: Any, new_world: Any, helpers: Any
) -> None:
    client.get("/login")
    accounts(client).disable("it")
    texts = []
    for name, password in (("nobody", helpers.PASSWORD), ("officer", "wrong" * 4), ("it", helpers.PASSWORD)):
        answer = first(client, helpers, name, password)
        assert answer.status_code == 403
        texts.append(answer.text)
    assert len(set(texts)) == 1


@pytest.mark.parametrize("name", ["officer", "nobody"])
def test_after_some_wrong_passwords_the_right_one_has_to_wait_and_the_wait_grows(
    client: Any, new_world: Any, helpers: Any, name: str
) -> None:
    for _ in range(FREE_ATTEMPTS):
        assert first(client, helpers, name, "wrong" * 4).status_code == 403
    waits = []
    for _ in range(8):
        answer = first(client, helpers, name, helpers.PASSWORD)
        assert answer.status_code == 429
        waits.append(int(answer.headers["retry-after"]))
        new_world.clock.later(waits[-1])
        assert first(client, helpers, name, "wrong" * 4).status_code == 403
    doubled = [min(LONGEST_WAIT, FIRST_WAIT * 2**step) for step in range(8)]
    assert waits == doubled
    new_world.clock.later(LONGEST_WAIT)
    assert first(client, helpers, name, helpers.PASSWORD).status_code == (200 if name == "officer" else 403)


def test_wrong_codes_lock_too_and_a_right_password_in_between_does_not_forgive_them(
    client: Any, new_world: Any, helpers: Any
) -> None:
    for attempt in range(FREE_ATTEMPTS):
        if attempt % 2 == 0:
            client.cookies.clear()
            first(client, helpers, "officer", helpers.PASSWORD)
        assert second(client, helpers, "000000").status_code == 403
    right = code_now(new_world)
    assert second(client, helpers, right).status_code == 429
    assert not inside(client)
    new_world.clock.later(FIRST_WAIT)
    assert second(client, helpers, code_now(new_world)).status_code == 200


def test_a_code_is_taken_once(client: Any, new_world: Any, helpers: Any) -> None:
    first(client, helpers, "officer", helpers.PASSWORD)
    code = new_world.code("officer")
    assert second(client, helpers, code).url.path == "/"
    with helpers.new_client(new_world.app()) as thief:
        first(thief, helpers, "officer", helpers.PASSWORD)
        assert second(thief, helpers, code).status_code == 403
        assert not inside(thief)
        new_world.clock.later(30)
        assert (
            second(thief, helpers, pyotp.TOTP(new_world.secrets["officer"]).at(int(new_world.clock.now))).status_code
            == 200
        )


def test_a_code_from_before_one_that_was_taken_is_not_taken(client: Any, new_world: Any, helpers: Any) -> None:
    codes = pyotp.TOTP(new_world.secrets["officer"])
    older, newer = codes.at(int(new_world.clock.now)), codes.at(int(new_world.clock.now) + 30)
    first(client, helpers, "officer", helpers.PASSWORD)
    assert second(client, helpers, newer).url.path == "/"
    with helpers.new_client(new_world.app()) as other:
        first(other, helpers, "officer", helpers.PASSWORD)
        assert second(other, helpers, older).status_code == 403


def test_codes_follow_rfc_6238(new_world: Any) -> None:
    # Appendix B of RFC 6238, SHA-1, the last six of its eight digits.
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    from wardround.console.web.accounts import _step_of

    for at, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert _step_of(secret, code, float(at)) == at // 30
        assert _step_of(secret, code, float(at) + 90) is None


def test_the_cookie_is_for_this_host_over_tls_out_of_reach_of_scripts(client: Any, helpers: Any) -> None:
    token = helpers.csrf(client, "/login")
    answer = client.post(
        "/login", data={"name": "officer", "password": helpers.PASSWORD, "csrf": token}, follow_redirects=False
    )
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith(f"{COOKIE}="))
    flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= flags
    assert not any(flag.startswith(("domain", "expires", "max-age")) for flag in flags)
    assert COOKIE.startswith("__Host-")


def test_the_session_gets_a_new_name_at_each_step_and_the_old_one_is_worth_nothing(
    client: Any, new_world: Any, helpers: Any
) -> None:
    first(client, helpers, "officer", helpers.PASSWORD)
    halfway = client.cookies[COOKIE]
    second(client, helpers, new_world.code("officer"))
    assert client.cookies[COOKIE] != halfway and inside(client)
    with helpers.new_client(new_world.app()) as other:
        other.cookies.set(COOKIE, halfway)
        assert not inside(other)


def test_a_cookie_that_somebody_prepared_becomes_no_session(client: Any, new_world: Any, helpers: Any) -> None:
    client.cookies.set(COOKIE, "prepared-by-a-thief")
    helpers.log_in(client, new_world, "officer")
    with helpers.new_client(new_world.app()) as thief:
        thief.cookies.set(COOKIE, "prepared-by-a-thief")
        assert not inside(thief)


def test_a_session_ends_when_idle_after_a_day_and_at_logout(client: Any, new_world: Any, helpers: Any) -> None:
    helpers.log_in(client, new_world, "officer")
    new_world.clock.later(IDLE_SECONDS - 1)
    assert inside(client)
    new_world.clock.later(IDLE_SECONDS + 1)
    assert not inside(client)
    helpers.log_in(client, new_world, "officer")
    for _ in range(int(MOST_SECONDS // (IDLE_SECONDS - 1)) + 1):
        new_world.clock.later(IDLE_SECONDS - 1)
        client.get("/")
    assert not inside(client)
    helpers.log_in(client, new_world, "officer")
    kept = client.cookies[COOKIE]
    client.post("/logout", data={"csrf": helpers.csrf(client)})
    client.cookies.set(COOKIE, kept)
    assert not inside(client)


def test_the_second_factor_has_some_minutes(client: Any, new_world: Any, helpers: Any) -> None:
    first(client, helpers, "officer", helpers.PASSWORD)
    new_world.clock.later(SECOND_FACTOR_SECONDS + 1)
    assert client.get("/login/code").url.path == "/login"


def test_disabling_and_resetting_an_account_log_it_out_at_once(client: Any, new_world: Any, helpers: Any) -> None:
    helpers.log_in(client, new_world, "officer")
    accounts(client).disable("officer")
    assert not inside(client)
    new_world.secrets["officer"] = accounts(client).reset_totp("officer")
    assert not inside(client)
    helpers.log_in(client, new_world, "officer")
    assert inside(client)


def test_the_database_holds_no_password_no_cookie_and_is_closed_to_others(
    client: Any, new_world: Any, helpers: Any
) -> None:
    helpers.log_in(client, new_world, "officer")
    path = new_world.path / "console.sqlite"
    assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(path) as store:
        dumped = "\n".join(store.iterdump())
    assert helpers.PASSWORD not in dumped and client.cookies[COOKIE] not in dumped
    assert hashlib.sha256(client.cookies[COOKIE].encode()).hexdigest() in dumped
    assert "$argon2id$" in dumped


@pytest.mark.parametrize(
    ("name", "role", "password", "fault"),
    [
        ("Anna!", "officer", "four words are enough", "no name"),
        ("anna", "root", "four words are enough", "no role"),
        ("anna", "coordinator", "four words are enough", "no role"),
        ("anna", "officer", "short", "characters"),
        ("anna.the.officer", "officer", "anna.the.officer1", "name"),
        ("officer", "officer", "four words are enough", "already"),
    ],
)
def test_an_account_that_will_not_do_is_refused(client: Any, name: str, role: str, password: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        accounts(client).add(name, role, password)


def accounts(client: Any) -> Any:
    return client.app.console.accounts
