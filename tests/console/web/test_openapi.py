"""Schemathesis over the console's OpenAPI: whatever a program sends for a logged-in person, no page breaks.

The console serves no such document. It is made here of the application's routes, and the fields of its forms are read
off its pages; so a new page is asked without a line here. ``make soak`` asks for longer.
"""

import os
import re
import time
from collections import Counter
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from wardround.console.web.app import make_app
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES, Face, Role
from wardround.console.web.security import Names

SECONDS = 200.0 if os.environ.get("WARDROUND_SOAK") else 5.0
"""For each role, and for nobody."""

TOKEN = "the-token-of-this-session"
"""Stands for it in the document, since a session may end while the document is used."""

FORM = "application/x-www-form-urlencoded"
OWN = {Face.SITE: "world", Face.COORDINATOR: "own_hub"}
"""The world of one's own of each face."""

WHO = [(face, role) for face in Face for role in (*ROLES[face], None)]


class Forms(HTMLParser):
    """A page's forms: (method, action) -> name of a field -> the values that the page gives it."""

    def __init__(self, text: str, here: str) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], dict[str, set[str]]] = {}
        self._here, self._fields, self._select = here, {}, ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            key = values.get("method", "get").lower(), values.get("action") or self._here
            self._fields = self.found.setdefault(key, {})
        elif tag in ("input", "textarea", "select", "button") and "name" in values:
            self._fields.setdefault(values["name"], set()).add(values.get("value", ""))
            self._select = values["name"] if tag == "select" else ""
        elif tag == "option" and self._select:
            self._fields[self._select].add(values.get("value", ""))


class Client:
    """Asks a console for one role, with a new session whenever the last one has ended."""

    def __init__(self, world: Any, role: Role | None, helpers: Any, pages: Any = PAGES) -> None:
        self.world, self.role, self.helpers = world, role and role.value, helpers
        self.app = make_app(
            world.path, world.face, Names.of(("127.0.0.1",), helpers.PORT, tls=True), tls=True, clock=world.clock,
            pages=pages, hasher=helpers.WEAK,
        )  # fmt: skip
        self.asker = helpers.Asker(self.app, self.role)
        self.statuses: Counter[tuple[str, int]] = Counter()

    def send(self, case: Any) -> None:
        """Send what schemathesis made, and look at the answer."""
        self._stay()
        made = requests.Request(**case.as_transport_kwargs(base_url="https://127.0.0.1:8640")).prepare()
        where = urlsplit(made.url)
        body = made.body.encode() if isinstance(made.body, str) else made.body or b""
        kind = made.headers.get("content-type") if body else None
        content = body.replace(TOKEN.encode(), self.asker.token.encode())
        answer = self.asker.ask(case.method.upper(), where.path, content, query=where.query, content_type=kind)
        self.look(case.operation.label, answer, where.path)

    def look(self, label: str, answer: Any, path: str) -> None:
        self.statuses[label, answer.status] += 1
        assert answer.status < 500 or answer.status == 503, f"{label} {answer.status}: {answer.text[:2000]}"
        assert "Traceback" not in answer.text and "RuntimeError" not in answer.text
        assert self.helpers.missing_headers(answer, path) == []
        assert answer.status < 400 or answer["content-type"].startswith("text/html"), (label, answer.status)

    def document(self) -> dict[str, Any]:
        """The OpenAPI of the application, with the forms of all pages that this role sees."""
        made: dict[str, Any] = get_openapi(title="console", version="1", routes=self.app._app._app.routes)
        forms = self._forms()
        for path, methods in made["paths"].items():
            for method, operation in methods.items():
                for one in operation.get("parameters", []):
                    one["schema"] = one_of(one["schema"], {self.world.examples.get(one["name"], "1")})
                fields = {"csrf": {TOKEN}, "reason": {"because"}, "code": {"000000"}}
                for (how, action), names in forms.items():
                    if how == method and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", path), action):
                        fields |= names
                if method == "post":
                    operation["requestBody"] = {
                        "content": {"application/x-www-form-urlencoded": {"schema": form(fields)}}
                    }
                else:
                    there = {one["name"] for one in operation.setdefault("parameters", [])}
                    operation["parameters"] += [
                        {"name": name, "in": "query", "schema": one_of({"type": "string"}, values)}
                        for name, values in fields.items() if name not in there and name != "csrf"
                    ]  # fmt: skip
        return made

    def _stay(self) -> None:
        console = self.app.console
        if self.role is None or console.sessions.find(self.asker.cookie) is not None:
            return
        if next(one for one in console.accounts.all() if one.name == self.role).disabled:
            console.accounts.reset_totp(self.role)
        self.asker.begin(self.role)

    def _forms(self) -> dict[tuple[str, str], dict[str, set[str]]]:
        found: dict[tuple[str, str], dict[str, set[str]]] = {}
        paths = [self.helpers.filled(page.path, self.world) for page in self.app.console.pages]
        for path in ["/login", "/login/code", *paths]:
            for key, fields in Forms(self.asker.ask("GET", path).text, path).found.items():
                found.setdefault(key, {}).update(fields)
        return found


def one_of(schema: dict[str, Any], values: set[str]) -> dict[str, Any]:
    """As ``schema`` says, or one of the values that a page gives."""
    return {"anyOf": [{"enum": sorted(values)}, schema]}


def form(fields: dict[str, set[str]]) -> dict[str, Any]:
    properties = {name: one_of({"type": "string"}, values) for name, values in fields.items()}
    return {"type": "object", "properties": properties | {"csrf": {"const": TOKEN}}, "required": ["csrf"]}


def ask_all(client: Client, seconds: float, least: int = 2) -> None:
    """Ask every operation for its part of ``seconds``, with what fits the document and with what does not."""
    schema = schemathesis.openapi.from_dict(client.document())
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not (list(operation.iter_parameters()) or operation.body):
                continue
            ask_one(client, operation.as_strategy(generation_mode=mode), seconds / len(operations) / 2, least)
    assert {label for label, _ in client.statuses} == {operation.label for operation in operations}


class TimeIsUp(Exception):
    """Enough was sent: hypothesis has no other way to end early."""


def ask_one(client: Client, strategy: Any, seconds: float, least: int) -> None:
    end, sent = time.monotonic() + seconds, 0

    @settings(
        max_examples=10_000, deadline=None, database=None, phases=[Phase.generate], report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy)
    def ask(case: Any) -> None:
        nonlocal sent
        if time.monotonic() > end and sent >= least:
            raise TimeIsUp
        sent += 1
        client.send(case)

    with suppress(TimeIsUp):
        ask()


@pytest.mark.parametrize(("face", "role"), WHO, ids=lambda one: "nobody" if one is None else one.value)
def test_nothing_that_is_sent_breaks_a_page(face: Face, role: Role | None, helpers: Any, request: Any) -> None:
    client = Client(request.getfixturevalue(OWN[face]), role, helpers)
    ask_all(client, SECONDS)
    good = [label for label, status in client.statuses if status == 200]
    assert ("GET /" in good) is (role is not None)
    if role is not None:
        assert [status for label, status in client.statuses if label == "POST /language" and status in (303, 400)]
    print(
        f"{role}: {sum(client.statuses.values())} requests, {dict(Counter(s for _, s in client.statuses.elements()))}"
    )


def test_a_page_that_breaks_is_found(world: Any, helpers: Any) -> None:
    router = APIRouter()
    router.add_api_route("/trial/{digest}", lambda digest: {}["a"] if len(digest) != 64 else {}, methods=["GET"])
    page = Page(Face.SITE, "/trial/{digest}", "Trial", "run", frozenset({Role.IT}), router)
    client = Client(world, Role.IT, helpers, [*PAGES, page])
    with pytest.raises(AssertionError, match=r"GET /trial/\{digest\} 500"):
        ask_all(client, SECONDS)
