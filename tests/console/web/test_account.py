"""One's own account and the list of accounts: what changes them, what does not, and who waits for whose mistakes."""

import re
import sqlite3
from html import unescape
from types import SimpleNamespace
from typing import Any

import pyotp
import pytest

from wardround.console.web.accounts import FIRST_WAIT, FREE_ATTEMPTS
from wardround.console.web.attempts import (
    BROWSER_COOKIE,
    MOST_IN_ALL,
    MOST_OF_ADDRESS,
    WINDOW,
    Browsers,
    Limits,
    attempt,
    network_of,
)  # fmt: skip
from wardround.console.web.sessions import COOKIE
from wardround.console.web.store import VERSION, open_console

NEW = "a new one of five words"


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def change(client: Any, helpers: Any, **typed: str) -> Any:
    data = {"new": NEW, "again": NEW, "old": helpers.PASSWORD, "csrf": helpers.csrf(client, "/account")}
    return client.post("/account", data=data | typed)


def inside(client: Any) -> bool:
    return bool(client.get("/account", follow_redirects=False).status_code == 200)


def wrong_password(client: Any, helpers: Any, name: str = "officer", password: str = "wrong" * 4) -> int:
    data = {"name": name, "password": password, "csrf": helpers.csrf(client, "/login")}
    return int(client.post("/login", data=data).status_code)


@pytest.mark.parametrize("role", ["officer", "it", "auditor"])
def test_every_role_changes_its_password_and_every_other_session_ends(
    world: Any, client_as: Any, helpers: Any, role: str
) -> None:
    here, other = client_as(role), client_as(role)
    halfway = helpers.new_client(world.app())
    before = here.cookies[COOKIE]
    wrong_password(halfway, helpers, role, helpers.PASSWORD)
    assert inside(other)
    answer = change(here, helpers, code=world.code(role))
    assert "The password is changed." in text_of(answer) and answer.url.path == "/account"
    assert inside(here) and not inside(other)
    assert here.cookies[COOKIE] != before
    assert halfway.get("/login/code", follow_redirects=False).headers["location"] == "/login"
    with helpers.new_client(world.app()) as later:
        assert wrong_password(later, helpers, role, helpers.PASSWORD) == 403
        assert wrong_password(later, helpers, role, NEW) == 200
    thief = helpers.new_client(world.app())
    thief.cookies.set(COOKIE, before)
    assert not inside(thief)


@pytest.mark.parametrize(
    ("typed", "status", "fault"),
    [
        ({"old": "wrong" * 4}, 403, "The old password or the code is wrong"),
        ({"code": "000000"}, 403, "The old password or the code is wrong"),
        ({"code": ""}, 403, "The old password or the code is wrong"),
        ({"again": "another of five words"}, 400, "not the same"),
        ({"new": "short", "again": "short"}, 400, "12 to 200 characters"),
        ({"new": "x" * 201, "again": "x" * 201}, 400, "12 to 200 characters"),
        ({"new": "officer12345", "again": "officer12345"}, 400, "little more than the account's name"),
        ({"new": "four words that nobody guesses", "again": "four words that nobody guesses"}, 400, "is the old one"),
    ],
)
def test_whatever_is_wrong_changes_nothing(
    world: Any, client_as: Any, helpers: Any, typed: dict[str, str], status: int, fault: str
) -> None:
    here, other = client_as("officer"), client_as("officer")
    answer = change(here, helpers, **({"code": world.code("officer")} | typed))
    assert answer.status_code == status and fault in text_of(answer) and "Nothing was changed." in text_of(answer)
    assert inside(here) and inside(other)
    with helpers.new_client(world.app()) as later:
        assert wrong_password(later, helpers, "officer", helpers.PASSWORD) == 200


def test_a_wrong_password_and_a_wrong_code_get_the_same_answer(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    texts = []
    for typed in ({"old": "wrong" * 4, "code": world.code("officer")}, {"code": "000000"}):
        texts.append(
            re.sub(
                r"<section aria-labelledby=.history.*?</section>", "", change(client, helpers, **typed).text, flags=re.S
            )
        )
    assert len(set(texts)) == 1


def test_a_code_that_was_taken_changes_no_password_and_one_that_changed_it_logs_nobody_in(
    world: Any, client_as: Any, helpers: Any
) -> None:
    client = client_as("officer")
    taken = pyotp.TOTP(world.secrets["officer"]).at(int(world.clock.now))
    assert change(client, helpers, code=taken).status_code == 403
    code = world.code("officer")
    assert change(client, helpers, code=code).status_code == 200
    with helpers.new_client(world.app()) as thief:
        wrong_password(thief, helpers, "officer", NEW)
        data = {"code": code, "csrf": helpers.csrf(thief, "/login/code")}
        assert thief.post("/login/code", data=data).status_code == 403


def test_a_stolen_session_guesses_neither_password_nor_code(world: Any, client_as: Any, helpers: Any) -> None:
    client, code = client_as("officer"), world.code("officer")
    for number in range(FREE_ATTEMPTS):
        answer = change(client, helpers, **({"code": "000000"} if number % 2 else {"old": "no", "code": "000000"}))
        assert answer.status_code == 403
    answer = change(client, helpers, code=code)
    assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= FIRST_WAIT
    world.clock.later(FIRST_WAIT)
    assert change(client, helpers, code=world.code("officer")).status_code == 200


def test_a_form_without_its_token_changes_no_account(world: Any, client_as: Any, helpers: Any) -> None:
    for role in ("officer", "auditor"):
        client = client_as(role)
        for path in ("/account", "/account/sessions"):
            data = {"old": helpers.PASSWORD, "new": NEW, "again": NEW, "code": world.code(role), "csrf": "0" * 64}
            assert client.post(path, data=data).status_code == 403
        assert inside(client)


def test_own_sessions_are_listed_and_the_others_end_at_one_press(world: Any, client_as: Any, helpers: Any) -> None:
    stranger = client_as("it")
    here, other = client_as("auditor"), client_as("auditor")
    text = text_of(here.get("/account"))
    assert text.count("Another browser") == 1 and text.count("This one") == 1 and "End 1 other session" in text
    answer = here.post("/account/sessions", data={"csrf": helpers.csrf(here, "/account")})
    assert "The other sessions of this account have ended." in text_of(answer)
    assert "Another browser" not in text_of(answer)
    assert inside(here) and not inside(other) and inside(stranger)


def test_what_happened_to_an_account_is_told_to_its_owner_and_to_nobody_else(
    world: Any, client_as: Any, helpers: Any
) -> None:
    with helpers.new_client(world.app()) as stranger:
        wrong_password(stranger, helpers)
        wrong_password(stranger, helpers, "nobody-of-that-name")
    text = text_of(client_as("officer").get("/account"))
    shown = text.split("What happened to this account")[1]
    assert "A wrong password" in shown and "Logged in" in shown and "new to this account" in shown
    assert "A wrong password" not in text_of(client_as("it").get("/account"))
    with sqlite3.connect(world.path / "console.sqlite") as store:
        assert "nobody-of-that-name" not in "\n".join(store.iterdump())


def test_while_strangers_make_a_name_wait_its_own_browser_does_not(world: Any, helpers: Any) -> None:
    app = world.app()
    with helpers.new_client(app) as own, helpers.new_client(app) as stranger, helpers.new_client(app) as new:
        helpers.log_in(own, world, "officer")
        own.post("/logout", data={"csrf": helpers.csrf(own, "/account")})
        for _ in range(FREE_ATTEMPTS):
            assert wrong_password(stranger, helpers) == 403
        assert wrong_password(stranger, helpers) == 429
        assert wrong_password(new, helpers, "officer", helpers.PASSWORD) == 429
        helpers.log_in(own, world, "officer")
        assert inside(own)


def test_a_known_browser_has_to_wait_for_its_own_mistakes_and_is_known_for_no_other_name(
    world: Any, client_as: Any, helpers: Any
) -> None:
    own = client_as("officer")
    assert own.cookies[BROWSER_COOKIE]
    own.post("/logout", data={"csrf": helpers.csrf(own, "/account")})
    for _ in range(FREE_ATTEMPTS):
        assert wrong_password(own, helpers) == 403
    assert wrong_password(own, helpers, "officer", helpers.PASSWORD) == 429
    for _ in range(FREE_ATTEMPTS):
        assert wrong_password(own, helpers, "it") == 403
    with helpers.new_client(world.app()) as other:
        assert wrong_password(other, helpers, "it") == 429


def test_a_mark_is_worth_nothing_for_another_account_another_console_or_changed(world: Any, new_world: Any) -> None:
    browsers = Browsers(open_console(world.path))
    mark = browsers.mark("officer")
    assert browsers.known(mark, "officer") == mark.split(".")[0]
    for forged in ("", ".", f"{mark}0", mark[1:], "x." + mark.split(".")[1], None, "é.é"):
        assert browsers.known(forged, "officer") is None
    assert browsers.known(mark, "it") is None
    assert Browsers(open_console(new_world.path)).known(mark, "officer") is None


def test_a_mark_opens_nothing(world: Any, client_as: Any, helpers: Any) -> None:
    with helpers.new_client(world.app()) as thief:
        thief.cookies.set(BROWSER_COOKIE, client_as("officer").cookies[BROWSER_COOKIE])
        assert not inside(thief)


def test_an_address_waits_after_so_many_mistakes_whatever_names_it_tries(world: Any, helpers: Any) -> None:
    app = world.app()
    with helpers.new_client(app) as own, helpers.new_client(app) as stranger:
        helpers.log_in(own, world, "officer")
        for number in range(MOST_OF_ADDRESS):
            assert wrong_password(stranger, helpers, f"name-{number}") == 403
        assert wrong_password(stranger, helpers, "it", helpers.PASSWORD) == 429
        own.post("/logout", data={"csrf": helpers.csrf(own, "/account")})
        helpers.log_in(own, world, "officer")
        world.clock.later(WINDOW)
        assert wrong_password(stranger, helpers, "it", helpers.PASSWORD) == 200


def test_addresses_are_counted_apart_and_all_together_and_forgotten(clock: Any) -> None:
    limits = Limits(clock)
    for _ in range(MOST_OF_ADDRESS):
        assert limits.locked("10.0.0.1") is None
        limits.failed("10.0.0.1")
    locked = limits.locked("10.0.0.1")
    assert locked is not None and locked.seconds == WINDOW
    assert limits.locked("10.0.0.2") is None
    for number in range(MOST_IN_ALL - MOST_OF_ADDRESS):
        limits.failed(f"10.1.{number}.1")
    assert limits.locked("10.0.0.2") is not None
    clock.later(WINDOW)
    assert limits.locked("10.0.0.1") is None and limits.locked("10.0.0.2") is None


def test_an_ipv6_host_is_its_network() -> None:
    assert network_of("2001:db8:1:2::5") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::5")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("testclient") == "testclient"


def test_a_right_attempt_counts_against_nobody(clock: Any) -> None:
    shared = SimpleNamespace(browsers=SimpleNamespace(known=lambda *_: None), limits=Limits(clock))
    request: Any = SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(console=shared)), cookies={}, client=SimpleNamespace(host="10.0.0.1")
    )
    for _ in range(2 * MOST_OF_ADDRESS):
        assert attempt(request, "officer", lambda browser: "right") == "right"
    for _ in range(MOST_OF_ADDRESS):
        assert attempt(request, "officer", lambda browser: None) is None
    assert attempt(request, "officer", lambda browser: "right") != "right"


def test_a_database_of_the_first_version_is_taken_over_and_a_later_one_is_not(world: Any, helpers: Any) -> None:
    with sqlite3.connect(world.path / "console.sqlite") as store:
        store.execute("DROP TABLE history")
        store.execute("PRAGMA user_version = 1")
    with helpers.new_client(world.app()) as client:
        helpers.log_in(client, world, "officer")
        assert "Logged in" in text_of(client.get("/account"))
    with sqlite3.connect(world.path / "console.sqlite") as store:
        assert store.execute("PRAGMA user_version").fetchone() == (VERSION,)
        store.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(Exception, match="does not know"):
        open_console(world.path)


def disable(client: Any, helpers: Any, name: str, code: str) -> Any:
    data = {"name": name, "code": code, "csrf": helpers.csrf(client, "/accounts")}
    return client.post("/accounts", data=data)


def test_it_disables_an_account_with_a_code_and_it_is_logged_out(world: Any, client_as: Any, helpers: Any) -> None:
    it, officer = client_as("it"), client_as("officer")
    assert disable(it, helpers, "officer", "000000").status_code == 403 and inside(officer)
    answer = disable(it, helpers, "officer", world.code("it"))
    assert "The account is disabled." in text_of(answer) and "Disabled" in text_of(answer)
    assert not inside(officer)
    with helpers.new_client(world.app()) as again:
        assert wrong_password(again, helpers, "officer", helpers.PASSWORD) == 403


def test_it_disables_neither_itself_nor_an_account_that_is_not_there(world: Any, client_as: Any, helpers: Any) -> None:
    it = client_as("it")
    assert disable(it, helpers, "it", world.code("it")).status_code == 409 and inside(it)
    assert disable(it, helpers, "nobody", world.code("it")).status_code == 409


def test_nobody_but_it_sees_or_changes_accounts(world: Any, client_as: Any, helpers: Any) -> None:
    for role in ("officer", "auditor"):
        client = client_as(role)
        assert client.get("/accounts").status_code == 403
        data = {"name": "it", "code": world.code(role), "csrf": helpers.csrf(client, "/account")}
        assert client.post("/accounts", data=data).status_code == 403
    assert inside(client_as("it"))


def test_no_page_makes_or_resets_an_account(world: Any, client_as: Any) -> None:
    routes = {(m, r.path) for router in world.app().console.routers for r in router.routes for m in r.methods}
    of_accounts = {(method, path) for method, path in routes if path.startswith("/account") and method == "POST"}
    assert of_accounts == {("POST", "/account"), ("POST", "/account/sessions"), ("POST", "/accounts")}
    text = client_as("it").get("/accounts").text
    assert all(secret not in text for secret in world.secrets.values()) and "$argon2" not in text


def test_a_coordinator_has_both_pages_and_a_researcher_one(hub: Any, helpers: Any) -> None:
    for role, status in (("coordinator", 200), ("researcher", 403)):
        with helpers.new_client(hub.app()) as client:
            helpers.log_in(client, hub, role)
            assert client.get("/accounts").status_code == status
            assert client.get("/account").status_code == 200


def test_the_account_is_reached_by_its_name_beside_every_page(client_as: Any) -> None:
    text = client_as("auditor").get("/").text
    assert '<a class="as-given" href="/account">auditor</a>' in text


@pytest.fixture
def clock(helpers: Any) -> Any:
    class Clock:
        now = 1_000_000.0

        def __call__(self) -> float:
            return self.now

        def later(self, seconds: float) -> None:
            self.now += seconds

    return Clock()
