"""What a hostile page, link, proxy or study can do to the console: each is tried, and beside it what is let in."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from wardround.console.web import security
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import Role
from wardround.console.web.security import HEADERS, MOST_BYTES, Names
from wardround.protocol.errors import UsageError

ClientAs = Callable[[str], Any]
PUBLIC = {("GET", "/login"), ("POST", "/login"), ("GET", "/login/code"), ("POST", "/login/code"), ("POST", "/logout")}


def change(client: Any, token: str, **headers: str | None) -> Any:
    """A request that changes something, with headers of one's own; None leaves one out."""
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    for name in [name for name, value in own.items() if value is None]:
        client.headers.pop(name, None)
    given = {name: value for name, value in own.items() if value is not None}
    return client.post(
        "/language", data={"language": "fr", "csrf": token}, headers=given, follow_redirects=False
    ).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"origin": "null"}, 303),
        ({"origin": None}, 303),
        ({"sec_fetch_site": None}, 303),
        ({"origin": "https://evil.example.org"}, 403),
        ({"origin": "https://127.0.0.1:8640.evil.example.org"}, 403),
        ({"origin": "http://127.0.0.1:8640"}, 403),
        ({"origin": "https://127.0.0.1"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "null", "sec_fetch_site": None}, 403),
        ({"origin": None, "sec_fetch_site": None}, 403),
    ],
)
def test_a_stolen_cookie_changes_nothing_from_another_origin(
    client_as: ClientAs, helpers: Any, headers: dict[str, str | None], status: int
) -> None:
    client = client_as("officer")
    assert change(client, helpers.csrf(client), **headers) == status


@pytest.mark.parametrize("fault", ["missing", "empty", "forged", "of another session", "of a form before the login"])
def test_a_form_without_the_token_of_this_session_is_refused(
    client_as: ClientAs, helpers: Any, world: Any, fault: str
) -> None:
    client, other = client_as("officer"), client_as("it")
    with helpers.new_client(world.app()) as stranger:
        before = helpers.csrf(stranger, "/login")
    token = {
        "missing": None,
        "empty": "",
        "forged": "0" * 64,
        "of another session": helpers.csrf(other),
        "of a form before the login": before,
    }[fault]
    data = {"language": "fr"} | ({} if token is None else {"csrf": token})
    assert client.post("/language", data=data).status_code == 403
    assert client.post("/logout", data=data).status_code == 403
    assert client.get("/").status_code == 200


def test_the_login_form_needs_a_token_too(world: Any, helpers: Any) -> None:
    with helpers.new_client(world.app()) as client:
        client.get("/login")
        assert client.post("/login", data={"name": "officer", "password": helpers.PASSWORD}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:8641", "127.0.0.1:8640@evil.example", "localhost:8640", ""]
)
def test_another_host_name_is_answered_with_nothing_of_ours(client_as: ClientAs, host: str) -> None:
    client = client_as("officer")
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "north" not in answer.text.replace("Wardround", "") or "Overview" not in answer.text
    assert "Log out" not in answer.text


def test_names_are_origins_and_nothing_else() -> None:
    names = Names.of(("10.0.0.5",), 443, ("https://console.example.org",), tls=True)
    assert names.hosts == {"10.0.0.5:443", "10.0.0.5", "console.example.org"}
    for wrong in (
        "console.example.org",
        "https://a.example.org b",
        "https://a.example.org/y",
        "javascript:alert(1)",
        "*",
    ):
        with pytest.raises(UsageError):
            Names.of(("10.0.0.5",), 443, (wrong,), tls=True)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/static/%2e%2e%2f%2e%2e%2fstore.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/",
        "/../../etc/passwd",
        "/console.sqlite",
        "/docs",
        "/openapi.json",
        "/redoc",
    ],
)
def test_no_path_leads_out_of_the_static_files(client_as: ClientAs, path: str) -> None:
    answer = client_as("officer").get(path)
    assert answer.status_code in (400, 404)
    assert "import" not in answer.text and "root:" not in answer.text


def test_the_static_files_are_there(client_as: ClientAs) -> None:
    client = client_as("officer")
    assert "--accent" in client.get("/static/console.css").text
    assert client.get("/static/live.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/login", 200), ("/nowhere", 404), ("/static/console.css", 200)]
)
def test_every_answer_has_every_header(client_as: ClientAs, path: str, status: int) -> None:
    answer = client_as("officer").get(path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["strict-transport-security"]
    assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert "server" not in answer.headers


def test_what_a_stranger_wrote_is_shown_as_text(client_as: ClientAs, helpers: Any) -> None:
    text = client_as("officer").get("/").text
    assert "<script>alert" not in text and "onerror=alert(2)>" not in text.replace("&gt;", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not {"\u202e", "\u200b", "\x1b"} & set(text)
    assert "W" * 400 not in text


def test_a_body_that_comes_too_slowly_is_refused(world: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = helpers.Asker(world.app(), "officer")
    fields = {"language": "en"}
    assert asker.send("/language", fields).status == 303
    monkeypatch.setattr(security, "BODY_SECONDS", 0.5)
    asker.pauses = 50.0  # the answer has come long before
    answer = asker.send("/language", fields)
    assert answer.status == 408 and "too slowly" in answer.text
    assert helpers.missing_headers(answer, "/language") == []


@pytest.mark.server("chromium")
def test_no_script_of_a_study_runs_in_a_real_browser(shown: Any, visits: Any) -> None:
    with visits.page(shown, "officer") as window:
        asked: list[str] = []
        window.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        window.goto("/")
        window.wait_for_timeout(300)
        assert asked == [] and window.faults == []
        window.evaluate("window.alert('3')")
        assert asked == ["3"]


def test_a_study_of_ten_thousand_letters_stays_small(world: Any, client_as: ClientAs, helpers: Any) -> None:
    world.proposed(helpers.plan_of("rounds=4", "privacy.noise_multiplier=2.9", title="T" * 10_000))
    text = client_as("officer").get("/").text
    assert "T" * 100 in text and "T" * 400 not in text


def test_no_route_but_the_login_answers_a_stranger_and_none_takes_a_form_without_a_token(
    world: Any, helpers: Any
) -> None:
    app = world.app()
    known = routes(app)
    assert len(known) > 5 and known >= PUBLIC
    with helpers.new_client(app) as client:
        for method, path in sorted(known - PUBLIC):
            where = path.format(**world.examples)
            status = client.request(method, where, follow_redirects=False).status_code
            assert status in ((303,) if method == "GET" else (303, 403)), (method, path, status)


def test_an_auditor_and_nobody_in_the_wrong_role_changes_anything(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    assert routes(world.app())
    assert {page.path for page in PAGES if page.own_account} == {"/account"}, "who only reads may send these forms"
    for role in (Role.OFFICER, Role.IT, Role.AUDITOR):
        client = client_as(role.value)
        token = helpers.csrf(client)
        for page in PAGES:
            writes = role in page.writers and (role is not Role.AUDITOR or page.own_account)
            if page.face is not world.face or writes:
                continue
            for method, path in routes_of(page.router):
                if method == "POST" and not (path in page.asks and role in page.roles):
                    where = path.format(**world.examples)
                    assert client.post(where, data={"csrf": token}).status_code == 403, (role, path)


def test_a_page_that_lets_an_auditor_write_does_not(world: Any, helpers: Any) -> None:
    from fastapi import APIRouter

    from wardround.console.web.app import make_app
    from wardround.console.web.page import Page
    from wardround.console.web.roles import ROLES, Face

    router, done = APIRouter(), []
    router.add_api_route("/press", lambda: done.append(1) or {}, methods=["POST"])
    everybody = frozenset(ROLES[Face.SITE])
    page = Page(Face.SITE, "/press", "Press", "run", everybody, router, writers=everybody)
    app = make_app(
        world.path, names=Names.of(("127.0.0.1",), helpers.PORT, tls=True), tls=True, clock=world.clock,
        pages=[*PAGES, page], hasher=helpers.WEAK,
    )  # fmt: skip
    for role, status in (("auditor", 403), ("officer", 200)):
        with helpers.new_client(app) as client:
            helpers.log_in(client, world, role)
            assert client.post("/press", data={"csrf": helpers.csrf(client)}).status_code == status
            assert client.post("/press", data={"csrf": "0" * 64}).status_code == 403
    assert done == [1]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(client_as: ClientAs, method: str) -> None:
    assert client_as("officer").request(method, "/").status_code == 405


def test_a_body_that_is_too_long_is_refused_with_and_without_its_length(client_as: ClientAs, helpers: Any) -> None:
    client = client_as("officer")
    kind = {"content-type": "application/x-www-form-urlencoded"}
    body = b"csrf=" + b"0" * MOST_BYTES
    assert client.post("/language", content=body, headers=kind).status_code == 413

    def pieces() -> Any:
        yield b"csrf="
        for _ in range(17):
            yield b"0" * (MOST_BYTES // 16)

    assert client.post("/language", content=pieces(), headers=kind).status_code == 413


def test_an_error_shows_two_lines_and_nothing_of_the_defect(
    client_as: ClientAs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wardround.console.web.queries.site import SiteQueries

    def defect(_: object) -> None:
        raise RuntimeError("patient Quillfeather")

    client = client_as("officer")
    monkeypatch.setattr(SiteQueries, "view", defect)
    with caplog.at_level(logging.INFO):
        answer = client.get("/")
    assert answer.status_code == 500 and "defect" in answer.text
    assert "Quillfeather" not in answer.text + caplog.text and "Traceback" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text


def test_the_access_log_has_routes_and_roles_and_nothing_that_was_typed(
    client_as: ClientAs, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_as("auditor")
    with caplog.at_level(logging.INFO, "wardround.console.access"):
        client.get("/?patient=Quillfeather")
        client.get("/patients/Quillfeather")
    lines = [record.getMessage() for record in caplog.records if record.name == "wardround.console.access"]
    assert len(lines) == 2 and "GET / 200" in lines[0] and "role=auditor" in lines[0] and "GET - 404" in lines[1]
    assert "Quillfeather" not in " ".join(lines)


def routes(app: Any) -> set[tuple[str, str]]:
    """(method, path) of everything that the application answers, static files apart."""
    return {pair for router in (app.console.routers) for pair in routes_of(router)}


def routes_of(router: Any) -> set[tuple[str, str]]:
    return {(method, route.path) for route in router.routes for method in route.methods - {"HEAD"}}
