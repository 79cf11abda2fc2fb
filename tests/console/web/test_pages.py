"""Every page of both consoles, for every role, in light and dark, on a telephone and on a desk.

A page that is added to ``PAGES`` is tested here without another line.
"""

import gettext
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from wardround.console import i18n
from wardround.console.web import app
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES, Role
from wardround.console.web.security import POLICY

EACH = [(page, role) for page in PAGES for role in ROLES[page.face]]
MOST_BYTES = 100_000
OPEN, SHUT = "⟦", "⟧"
SHOWN_ATTRIBUTES = ("alt", "aria-label", "data-label", "data-lost", "data-said", "placeholder", "title")
NOT_WORDS = ("code", "script", "style", "time")
DATA = re.compile(r"Wardround|\d{1,2} [A-Z][a-z]+ \d{4}, [\d:]+ UTC")
"""A name, and a time as it is written in English."""


def ident(value: object) -> str:
    return f"{value.face.value}:{value.path}" if isinstance(value, Page) else str(value)


@pytest.fixture(params=EACH, ids=lambda pair: f"{ident(pair[0])}-{pair[1].value}")
def page_and_role(request: pytest.FixtureRequest) -> tuple[Page, Role]:
    found: tuple[Page, Role] = request.param
    return found


@pytest.fixture(scope="session")
def clients(worlds: dict[str, Any], helpers: Any) -> Iterator[Callable[[Page, Role], Any]]:
    """One login for each role of each console, for all tests of this file."""
    made: dict[tuple[str, str], Any] = {}

    def client(page: Page, role: Role) -> Any:
        world, key = worlds[page.face.value], (page.face.value, role.value)
        if key not in made:
            made[key] = helpers.new_client(world.app())
            helpers.log_in(made[key], world, role.value)
        return made[key]

    yield client
    for one in made.values():
        one.close()


def address(page: Page, worlds: dict[str, Any]) -> str:
    """The page's path, with its parameters filled in from the world's examples."""
    return page.path.format(**worlds[page.face.value].examples)


def test_a_page_answers_its_roles_and_refuses_the_others(
    page_and_role: tuple[Page, Role], clients: Any, worlds: dict[str, Any]
) -> None:
    page, role = page_and_role
    answer = clients(page, role).get(address(page, worlds))
    assert answer.status_code == (200 if role in page.roles else 403)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"


def test_a_page_and_all_that_it_loads_is_small(
    page_and_role: tuple[Page, Role], clients: Any, worlds: dict[str, Any]
) -> None:
    page, role = page_and_role
    client = clients(page, role)
    answer = client.get(address(page, worlds))
    loaded = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text))
    assert "/static/console.css" in loaded
    assert len(answer.content) + sum(len(client.get(path).content) for path in loaded) < MOST_BYTES


def test_every_block_of_the_style_sheet_is_closed(shown: Any, helpers: Any) -> None:
    """One that is left open hides all rules behind it from some widths, and no page is wrong enough to fail."""
    with helpers.new_client(shown.app()) as client:
        style = client.get("/static/console.css").text
    depths = [0]
    for brace in re.findall(r"[{}]", re.sub(r"/\*.*?\*/", "", style, flags=re.S)):
        depths.append(depths[-1] + (1 if brace == "{" else -1))
    assert depths[-1] == 0 and min(depths) == 0
    comments = [style[: found.start()] for found in re.finditer(r"^/\*", style, flags=re.M)]
    assert all(before.count("{") == before.count("}") for before in comments), "a section begins inside of a block"


def test_every_word_of_a_page_can_be_translated(
    page_and_role: tuple[Page, Role], clients: Any, worlds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, role = page_and_role
    monkeypatch.setattr(i18n, "translations", lambda language: Marked())
    answer = clients(page, role).get(address(page, worlds))
    assert OPEN in answer.text
    assert untranslated(answer.text) == []


def test_words_that_cannot_be_translated_are_found() -> None:
    text = (
        f'<p>{OPEN}Yes{SHUT} No</p><p class="as-given">anna</p><a aria-label="Go">{OPEN}Go{SHUT}</a><time>May 1</time>'
    )
    assert untranslated(text) == ["No", "Go"]


def views(page: Page, role: Role) -> list[tuple[str, int]]:
    """Both themes and widths for the first role that sees a page; for others what differs most."""
    allowed = [one for one in ROLES[page.face] if one in page.roles]
    if role is allowed[0]:
        return list(product(("light", "dark"), (360, 1280)))
    return [("light", 360), ("dark", 1280)] if role in allowed else [("light", 360)]


@pytest.mark.server("chromium")
def test_a_page_is_accessible_and_fits_in_a_real_browser(
    page_and_role: tuple[Page, Role], worlds: dict[str, Any], visits: Any, axe: Any, screenshot: Any
) -> None:
    """In one window that is turned from view to view: no script of ours looks at its theme or width."""
    page, role = page_and_role
    name = re.sub(r"\W+", "-", f"{page.face.value}-{page.path.strip('/') or 'overview'}").strip("-")
    with visits.page(worlds[page.face.value], role.value) as window:
        assert window.goto(address(page, worlds)).status == (200 if role in page.roles else 403)
        for scheme, width in views(page, role):
            window.set_viewport_size({"width": width, "height": 800})
            window.emulate_media(color_scheme=scheme)
            screenshot(window, f"{name}-{role.value}-{scheme}-{width}")
            assert axe(window) == [], (scheme, width)
            assert sideways(window) == 0, (scheme, width)
        assert [fault for fault in window.faults if "status of 403" not in fault] == []


def test_no_script_looks_at_theme_or_width() -> None:
    looks = re.compile(r"matchMedia|innerWidth|clientWidth|offsetWidth|ResizeObserver|onresize|[\"']resize[\"']")
    scripts = list(Path(app.__file__).with_name("static").glob("*.js"))
    assert len(scripts) > 4 and [one.name for one in scripts if looks.search(one.read_text())] == []


@pytest.mark.server("chromium")
def test_what_is_too_wide_or_inaccessible_is_found(worlds: dict[str, Any], visits: Any, axe: Any) -> None:
    with visits.page(worlds["site"], None, width=360) as window:
        window.goto("/login")
        assert (axe(window), sideways(window), window.faults) == ([], 0, [])
        window.evaluate("document.querySelector('main').append(document.createElement('img'))")
        window.evaluate("document.querySelector('img').style.width = '900px'")
        assert [fault for fault in axe(window) if fault.startswith("image-alt")]
        assert sideways(window) > 0
        window.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: '1'}))")
        assert [fault for fault in window.faults if "Content Security Policy" in fault]


def sideways(window: Any) -> int:
    """By how many pixels the page can be scrolled to the side."""
    found: int = window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


class Marked(gettext.NullTranslations):
    """A language in which every translated text stands in brackets, so that others are seen."""

    def gettext(self, message: str) -> str:
        return f"{OPEN}{message}{SHUT}"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"{OPEN}{msgid1 if n == 1 else msgid2}{SHUT}"


class Texts(HTMLParser):
    """The texts of a page that a person reads, but for data, code and names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._stack: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.found += [values[name] for name in SHOWN_ATTRIBUTES if name in values]
        if tag in ("meta", "link", "input", "img", "br", "hr", "rect"):
            return
        given = "as-given" in values.get("class", "").split() or tag in NOT_WORDS
        self._stack.append((tag, given or bool(self._stack and self._stack[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not (self._stack and self._stack[-1][1]):
            self.found.append(data)


def untranslated(text: str) -> list[str]:
    """What a page says outside the brackets, where it has letters."""
    texts = Texts()
    texts.feed(text)
    rest = [re.sub(f"{OPEN}.*{SHUT}", "", found, flags=re.S).strip() for found in texts.found]
    return [found for found in rest if re.search(r"[^\W\d_]{2}", DATA.sub("", found)) and "·" not in found]
