"""Every route of both consoles, for every role and for nobody: reached exactly as the registry says.

The pages of the registry are mounted as always, but with functions that only say that they were reached; so what is
tested is what stands before every page, and nothing changes. Then the real pages are asked, and what they answer, log
and link to is searched. A page that is added to ``PAGES`` is tested here without another line.
"""

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.responses import PlainTextResponse

from wardround.console.web.app import make_app
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES, login
from wardround.console.web.roles import READS_ONLY, ROLES, Face, Role
from wardround.console.web.security import MOST_BYTES, Names
from wardround.console.web.sessions import IDLE_SECONDS, MOST_SECONDS

FACES = tuple(Face)
STRANGERS = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/login/code"),
    ("POST", "/login/code"),
    ("POST", "/logout"),
}
"""What may be asked without a session."""

FOREIGN: tuple[dict[str, str | None], ...] = (
    {"origin": "https://evil.example.org"},
    {"origin": "https://127.0.0.1:8640.evil.example.org"},
    {"origin": "http://127.0.0.1:8640"},
    {"origin": "null", "sec_fetch_site": None},
    {"origin": "null", "sec_fetch_site": "cross-site"},
    {"origin": None, "sec_fetch_site": None},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "none"},
)
OTHER_METHODS = ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "BREW")
OVERRIDES = ("x_http_method_override", "x_http_method", "x_method_override")
HOSTS = (
    "evil.example",
    "127.0.0.1",
    "127.0.0.1:8641",
    "127.0.0.1:8640@evil.example",
    "127.0.0.1:8640,evil.example",
    "",
)
TRAVERSALS = (
    "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fledger.sqlite", "%252e%252e%252fetc%252fhost",
    "..%5c..%5cledger.sqlite", "..\\..\\console.sqlite", "%00", "a%00.css", "%2fetc%2fpasswd", "/etc/passwd", "....//",
    "%c0%ae%c0%ae%2f", "%ff%fe", "~", ".", "a" * 5000, "%f0%9f%92%a9", "'--", "1;x=2", "{digest}", "a.css%2f..%2f",
)  # fmt: skip
NOT_OURS = ("root:x:", "SQLite format", "import annotations", "BEGIN PRIVATE KEY", "Traceback", "def make_app")


@dataclass(frozen=True, slots=True)
class Route:
    """A function of a page, or of the login where ``page`` is None."""

    page: Page | None
    method: str
    path: str

    def may(self, role: Role | None) -> bool:
        """What the registry says: who reads it, or may send its form."""
        if self.page is None:
            return role is not None or (self.method, self.path) in STRANGERS
        # Forms that ask something and change nothing, and those that change the sender's account, where a page has any.
        if self.method == "GET" or self.path in getattr(self.page, "asks", ()):
            return role in self.page.roles
        return role in self.page.writers - (frozenset() if getattr(self.page, "own_account", False) else READS_ONLY)


def routes_of(face: Face) -> list[Route]:
    of = [(None, login.router)] + [(page, page.router) for page in PAGES if page.face is face]
    return [route for page, router in of for route in routes_of_page(page, router)]


def routes_of_page(page: Page | None, router: APIRouter) -> list[Route]:
    return [Route(page, method, route.path) for route in router.routes for method in sorted(route.methods)]


def trial(face: Face) -> Page:
    """A page of the test's own, with a parameter and a form: whatever the registry has, no loop below is empty."""
    router = APIRouter()
    for method in ("GET", "POST"):
        router.add_api_route("/trial/{digest}", lambda: {}, methods=[method])
    roles = frozenset(ROLES[face])
    return Page(face, "/trial/{digest}", "Trial", "run", roles - {Role.IT, Role.COORDINATOR}, router, writers=roles)


class Doors:
    """The console of a face whose pages only say that they were reached, and an asker for each role and nobody."""

    def __init__(self, world: Any, helpers: Any) -> None:
        self.world, self.helpers = world, helpers
        self.reached: list[tuple[str, str]] = []
        mine = [*(page for page in PAGES if page.face is world.face), trial(world.face)]
        self.app = make_app(
            world.path, world.face, Names.of(("127.0.0.1",), helpers.PORT, tls=True), tls=True, clock=world.clock,
            pages=[replace(page, router=self._marked(page.router)) for page in mine], hasher=helpers.WEAK,
        )  # fmt: skip
        self.routes = [route for page in mine for route in routes_of_page(page, page.router)]
        self.askers = {role: helpers.Asker(self.app, role and role.value) for role in (*ROLES[world.face], None)}

    def _marked(self, router: Any) -> APIRouter:
        made = APIRouter(dependencies=router.dependencies)
        for route in router.routes:
            for method in route.methods:
                made.add_api_route(
                    route.path, self._mark(method, route.path), methods=[method], dependencies=route.dependencies
                )
        return made

    def _mark(self, method: str, path: str) -> Callable[[], PlainTextResponse]:
        def mark() -> PlainTextResponse:
            self.reached.append((method, path))
            return PlainTextResponse("reached")

        return mark

    def ask(self, role: Role | None, route: Route, **how: Any) -> tuple[int, list[tuple[str, str]]]:
        """(status, what was reached). ``how``: what the asker takes; "path", "method" and "fields" in place of ours."""
        asker, before = self.askers[role], len(self.reached)
        path, method = how.pop("path", self.helpers.filled(route.path, self.world)), how.pop("method", route.method)
        fields = how.pop("fields", {"csrf": asker.token})
        if method == "POST" and "body" not in how:
            how["body"] = urlencode(fields).encode()
        answer = asker.ask(method, path, **how)
        assert self.helpers.missing_headers(answer, path) == [], (method, path)
        return answer.status, self.reached[before:]


@pytest.fixture(scope="module", params=FACES, ids=lambda face: face.value)
def doors(request: Any, worlds: Any, helpers: Any) -> Doors:
    return Doors(worlds[request.param.value], helpers)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.value)
def test_an_application_has_the_routes_of_the_registry_and_of_the_login_and_no_other(face: Face, worlds: Any) -> None:
    inner = worlds[face.value].app()._app._app
    paths = get_openapi(title="-", version="1", routes=inner.routes)["paths"]
    found = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    known = [(route.method, re.sub(r":\w+}", "}", route.path)) for route in routes_of(face)]
    assert found == set(known) and len(known) == len(set(known)), "two pages answer one address"
    assert {route.path for route in inner.routes if hasattr(route, "app")} == {"/static"}
    routers = [id(page.router) for page in PAGES if page.face is face]
    assert len(routers) == len(set(routers)), "two pages share a router, so one goes by the other's roles"


def test_each_role_reaches_its_own_routes_and_no_others(doors: Doors) -> None:
    wrong = []
    for route in doors.routes:
        for role in doors.askers:
            status, reached = doors.ask(role, route)
            expected = [(route.method, route.path)] if route.may(role) else []
            refused = 303 if role is None else 403
            if reached != expected or status != (200 if expected else refused):
                wrong.append((route.method, route.path, role, status, reached))
    assert wrong == [] and doors.reached


@pytest.mark.parametrize("fault", ["none", "empty", "forged", "another's", "in the address", "in a header", "as json"])
def test_no_form_is_taken_without_the_token_of_its_session(doors: Doors, fault: str) -> None:
    for route in doors.routes:
        if route.method != "POST":
            continue
        for role, asker in doors.askers.items():
            token = asker.token
            other = next(one for one in doors.askers.values() if one is not asker).token
            how: dict[str, Any] = {
                "none": {"fields": {}},
                "empty": {"fields": {"csrf": ""}},
                "forged": {"fields": {"csrf": "0" * 63 + "1"}},
                "another's": {"fields": {"csrf": other}},
                "in the address": {"fields": {}, "query": f"csrf={token}"},
                "in a header": {"fields": {}, "x_csrf_token": token, "x_xsrf_token": token},
                "as json": {"body": f'{{"csrf": "{token}"}}'.encode(), "content_type": "application/json"},
            }[fault]
            status, reached = doors.ask(role, route, **how)
            assert reached == [] and status in (303, 403), (route.path, role)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_form_is_taken_from_another_origin_with_a_stolen_cookie_and_token(
    doors: Doors, headers: dict[str, str | None]
) -> None:
    for route in doors.routes:
        for role in doors.askers:
            if route.method == "POST":
                assert doors.ask(role, route, **headers) == (403, []), (route.path, role)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_no_other_method_reaches_a_page(doors: Doors, method: str) -> None:
    for route in doors.routes:
        for role in doors.askers:
            status, reached = doors.ask(role, route, method=method)
            assert reached == [] and status in (303, 405), (route.path, role, status)


def test_no_header_and_no_field_changes_the_method(doors: Doors) -> None:
    for route in doors.routes:
        for role in doors.askers:
            for name in OVERRIDES:
                other = "POST" if route.method == "GET" else "GET"
                _, reached = doors.ask(role, route, **{name: other}, query=f"_method={other}")
                assert reached in ([], [(route.method, route.path)]), (route.path, role)


@pytest.mark.parametrize("host", HOSTS)
def test_no_page_is_reached_under_another_name(doors: Doors, host: str) -> None:
    for route in doors.routes:
        for role in doors.askers:
            assert doors.ask(role, route, host=host) == (400, []), (route.path, role)


def test_a_proxy_s_headers_change_nothing(doors: Doors) -> None:
    evil = {
        "x_forwarded_host": "evil.example",
        "forwarded": "host=evil.example",
        "x_original_url": "/",
        "x_rewrite_url": "/",
    }
    for route in doors.routes:
        asker = doors.askers[None]
        answer = asker.ask(route.method, doors.helpers.filled(route.path, doors.world), **evil)
        assert "evil" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("fault", ["idle", "a day old", "half", "disabled", "invented", "logged out"])
def test_a_session_that_does_not_hold_reaches_nothing(fault: str, world: Any, own_hub: Any, helpers: Any) -> None:
    for place in (world, own_hub):
        doors = Doors(place, helpers)
        clock, now = place.clock, place.clock.now
        sessions = doors.app.console.sessions
        for role, asker in doors.askers.items():
            if role is None:
                continue
            if fault == "half":
                asker.begin(role.value, complete=False)
            elif fault == "disabled" and place is world:
                doors.app.console.accounts.disable(role.value)
            elif fault == "invented":
                asker.cookie = "x" * 43
            elif fault in ("logged out", "disabled"):
                sessions.end(sessions.find(asker.cookie))
        try:
            clock.later({"idle": IDLE_SECONDS + 1, "a day old": MOST_SECONDS + 1}.get(fault, 0.0))
            for route in doors.routes:
                for role in doors.askers:
                    status, reached = doors.ask(role, route)
                    assert reached == [] and status in (303, 403), (route.path, role, status)
        finally:
            clock.now = now


def test_a_body_that_is_too_long_reaches_nothing(doors: Doors) -> None:
    for route in doors.routes:
        if route.method == "POST":
            for role, asker in doors.askers.items():
                whole = b"csrf=" + asker.token.encode() + b"&a=" + b"0" * MOST_BYTES
                assert doors.ask(role, route, body=whole) == (413, []), (route.path, role)
                for length in ("-1", "1e3", "0x10", "", "99999999999999999999"):
                    status, reached = doors.ask(role, route, content_length=length)
                    assert reached == [] and status == 413, (route.path, role, length)
                _, reached = doors.ask(role, route, body=whole, content_length=None)
                assert reached == []


def test_forms_with_thousands_of_fields_and_files_reach_nothing(doors: Doors) -> None:
    kind = "multipart/form-data; boundary=x"
    for route in doors.routes:
        if route.method == "POST":
            for role, asker in doors.askers.items():
                pairs = [("csrf", asker.token), *((f"a{n}", "") for n in range(5000))]
                files = "".join(
                    f'--x\r\nContent-Disposition: form-data; name="f{n}"; filename="../{n}"\r\n\r\na\r\n'
                    for n in range(50)
                )
                parts = f'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{asker.token}\r\n{files}--x--\r\n'
                many = doors.ask(role, route, body=urlencode(pairs).encode())
                sent = doors.ask(role, route, body=parts.encode(), content_type=kind)
                cut = doors.ask(role, route, body=parts[:99].encode(), content_type=kind)
                for status, reached in (many, sent, cut):
                    assert reached == [] and status in (303, 400, 403), (route.path, role, status)


def test_no_parameter_of_a_path_leads_out_of_its_page(worlds: Any, helpers: Any) -> None:
    asked = 0
    for face in FACES:
        world = worlds[face.value]
        app = world.app()
        for role in ROLES[face]:
            asker = helpers.Asker(app, role.value)
            for route in routes_of(face):
                if route.method == "GET" and "{" in route.path and route.may(role):
                    for hostile in TRAVERSALS:
                        answer = asker.ask("GET", re.sub(r"\{[^}]*\}", lambda _, text=hostile: text, route.path))
                        assert 300 <= answer.status < 500, (route.path, hostile, answer.status)
                        assert not [text for text in NOT_OURS if text in answer.text]
                        assert helpers.missing_headers(answer, route.path) == []
                        asked += 1
    assert asked or not [page for page in PAGES if "{" in page.path]


@pytest.mark.parametrize("hostile", TRAVERSALS)
def test_no_path_leads_out_of_the_static_files(hostile: str, worlds: Any, helpers: Any) -> None:
    app = worlds["site"].app()
    for role in ("officer", None):
        asker = helpers.Asker(app, role)
        for path in (f"/static/{hostile}", f"/static/{hostile}/", f"/static//{hostile}", f"/{hostile}"):
            answer = asker.ask("GET", path)
            assert answer.status in (303, 400, 404), (path, answer.status)
            assert not [text for text in NOT_OURS if text in answer.text]
            assert helpers.missing_headers(answer, path) == []


class Addresses(HTMLParser):
    """Where a page leads: the addresses of its links, and its forms as (method, action, names of fields)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.forms: list[tuple[str, str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append((values.get("method", "get").lower(), values.get("action", ""), []))
        elif tag in ("input", "select", "textarea", "button") and self.forms and "name" in values:
            self.forms[-1][2].append(values["name"])
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loaded += [values[name] for name in ("src", "srcset", "data") if name in values]
        self.loaded += [values["href"]] if tag in ("link", "use", "image") and "href" in values else []


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """All that anybody logs, at every level, but the test's own client and event loop."""
    caplog.set_level(logging.DEBUG)
    yield lambda: "\n".join(
        record.getMessage()
        for record in caplog.records
        if record.name.split(".")[0] not in ("httpx", "httpcore", "asyncio")
    )


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.value)
def test_every_real_answer_is_headed_whole_and_no_secret_is_logged_or_put_in_an_address(
    face: Face, world: Any, helpers: Any, heard: Callable[[], str], request: Any
) -> None:
    """Reads and sends everything, with a session for each role and for nobody; the forms have a token and no more."""
    place = world if face is Face.SITE else request.getfixturevalue("own_hub")
    secrets = {
        helpers.PASSWORD,
        "secret-in-a-query",
        "secret-in-a-path",
        "secret-in-a-form",
        "typed in a form",
        *place.secrets.values(),
    }
    with helpers.new_client(place.app()) as client:
        helpers.log_in(client, place, ROLES[face][0].value)
        secrets |= {place.now(ROLES[face][0].value), client.cookies["__Host-wardround"], helpers.csrf(client)}
    app, texts = place.app(), []
    for role in (*ROLES[face], None):
        for route in routes_of(face):
            asker = helpers.Asker(app, role and role.value)
            secrets |= {asker.cookie or asker.token, asker.token} - {"0" * 64}
            path = helpers.filled(route.path, place)
            fields = urlencode({"csrf": asker.token, "password": "secret-in-a-form", "reason": "typed in a form"})
            body = fields.encode() if route.method == "POST" else b""
            answer = asker.ask(route.method, path, body, query="q=secret-in-a-query")
            assert answer.status < 500 or answer.status == 503, (route, role, answer.text)
            assert helpers.missing_headers(answer, path) == [], (route, role)
            assert "secret-in-a-form" not in answer.text and "Traceback" not in answer.text
            texts.append(answer["location"])
            found = Addresses(answer.text)
            texts += [*found.links, *found.loaded, *(action for _, action, _ in found.forms)]
            assert [
                form for form in found.forms if form[0] != "post" and {"csrf", "password", "code"} & set(form[2])
            ] == []
            assert all(method != "post" or "csrf" in names for method, _, names in found.forms), (route, role)
            assert [address for address in found.loaded if not address.startswith(("/static/", "#"))] == []
        helpers.Asker(app, role and role.value).ask("GET", "/secret-in-a-path", query="q=secret-in-a-query")
    log = heard()
    assert "role=" in log and " 200 " in log
    assert [secret for secret in secrets if secret in log] == []
    assert [(secret, text) for text in texts for secret in secrets - {"secret-in-a-query"} if secret in text] == []


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.value)
def test_every_link_of_a_page_leads_where_its_reader_may_go_and_no_table_holds_a_formula(
    face: Face, worlds: Any, helpers: Any
) -> None:
    world = worlds[face.value]
    app, seen = world.app(), set()
    for role in ROLES[face]:
        asker = helpers.Asker(app, role.value)
        todo = [helpers.filled(page.path, world) for page in PAGES if page.face is face and role in page.roles]
        while todo and len(seen) < 600:
            path, _, query = todo.pop().partition("#")[0].partition("?")
            if (role, path, query) in seen or not path.startswith("/"):
                continue
            seen.add((role, path, query))
            answer = asker.ask("GET", path, query=query)
            assert answer.status == 200, (role, path, answer.status)
            assert helpers.missing_headers(answer, path) == []
            if "text/csv" in answer["content-type"]:
                assert formulas(answer.text) == [], path
            elif "text/html" in answer["content-type"]:
                todo += [link if link.startswith("/") else f"{path}{link}" for link in Addresses(answer.text).links]
    assert len(seen) >= 2


def formulas(text: str) -> list[str]:
    """Cells that a spreadsheet would run."""
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    return [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![\d.,]*$)", cell)]


def test_a_formula_is_found() -> None:
    assert formulas("a,=1+1\n-5.2,-cmd\n'=1,+1\n") == ["=1+1", "-cmd", "+1"]
