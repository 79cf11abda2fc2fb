"""The pages of errors: two lines each, accessible, and with nothing of what went wrong inside."""

from typing import Any

import pytest
from fastapi import APIRouter

from wardround.console.web.app import make_app
from wardround.console.web.errors import ERRORS, HUB_AWAY
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES, Face
from wardround.console.web.security import Names, Refused
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError

RAISED: dict[str, tuple[Exception, int, tuple[str, str]]] = {
    "away": (Unavailable("no daemon runs", "start it <now>"), 503, ("no daemon runs", "start it &lt;now&gt;")),
    "no": (UsageError("it was refused \u202e", "look again"), 409, ("it was refused \\u202e", "look again")),
    "lie": (ProtocolViolation("east", "it sent nonsense"), 409, ("it sent nonsense", "ask the site")),
    "defect": (ValueError("patient Quillfeather"), 500, ERRORS[500]),
} | {str(status): (Refused(status, 7), status, ERRORS[status]) for status in (400, 403, 413, 429, 503)}


@pytest.fixture
def client(world: Any, helpers: Any) -> Any:
    router, roles = APIRouter(), frozenset(ROLES[Face.SITE])

    @router.get("/raise/{which}")
    def fail(which: str) -> None:
        raise RAISED[which][0]

    page = Page(Face.SITE, "/raise/{which}", "Raise", "run", roles, router)
    names = Names.of(("127.0.0.1",), helpers.PORT, tls=True)
    app = make_app(world.path, names=names, tls=True, clock=world.clock, pages=[*PAGES, page], hasher=helpers.WEAK)
    with helpers.new_client(app) as made:
        helpers.log_in(made, world, "officer")
        yield made


@pytest.mark.parametrize("which", RAISED)
def test_an_error_becomes_its_status_and_two_lines(client: Any, which: str) -> None:
    _, status, lines = RAISED[which]
    answer = client.get(f"/raise/{which}")
    assert answer.status_code == status
    for line in lines:
        assert line.replace("'", "&#39;") in answer.text
    assert "Quillfeather" not in answer.text and "\u202e" not in answer.text
    assert answer.headers.get("retry-after") == ("7" if which.isdecimal() else None)


def test_a_coordinator_is_not_told_of_a_sites_daemon(hub: Any, helpers: Any) -> None:
    router, roles = APIRouter(), frozenset(ROLES[Face.COORDINATOR])

    @router.get("/raise")
    def fail() -> None:
        raise Refused(503)

    page = Page(Face.COORDINATOR, "/raise", "Raise", "run", roles, router)
    names = Names.of(("127.0.0.1",), helpers.PORT, tls=True)
    app = make_app(
        hub.path, Face.COORDINATOR, names, tls=True, clock=hub.clock, pages=[*PAGES, page], hasher=helpers.WEAK
    )
    with helpers.new_client(app) as client:
        helpers.log_in(client, hub, "researcher")
        answer = client.get("/raise")
        assert answer.status_code == 503 and "daemon" not in answer.text and "wardround site" not in answer.text
        assert HUB_AWAY[0] in answer.text and "wardround coordinator status" in answer.text


@pytest.mark.server("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_login_and_error_pages_are_accessible_on_a_telephone(
    shown: Any, visits: Any, axe: Any, screenshot: Any, scheme: str
) -> None:
    for role, path in ((None, "/login"), ("auditor", "/nowhere")):
        with visits.page(shown, role, scheme=scheme, width=360) as window:
            window.goto(path)
            screenshot(window, f"{path.strip('/')}-{scheme}-360")
            assert axe(window) == []
            assert window.evaluate("document.documentElement.scrollWidth") <= 360
