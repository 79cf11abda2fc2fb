"""Pictures of every page, for people to look through: ``make screenshots`` writes them into ``screenshots/``.

Each page of the registry, empty, normal and in alarm; English in light and dark on a desk and a telephone, the other
languages in light. A page that is added to ``PAGES`` is pictured without another line. Nothing is tested here; the file
is collected only when it is named.

``make screenshots ARGS="-k guide"`` makes the few of ``GUIDE`` only, cut to size, in ``screenshots/guide/``. Those that
``docs/img/`` holds are such ones, looked at and copied there: take all of them anew, not one.
"""

import html
import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wardround.console.web.accounts import Accounts
from wardround.console.web.i18n import CODES, SOURCE
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES, Face
from wardround.console.web.store import open_console

FOLDER = Path(os.environ.get("WARDROUND_SCREENSHOTS", "screenshots"))
WIDTHS = (1280, 360)
STATES = {Face.SITE: ("empty", "normal", "alarm"), Face.COORDINATOR: ("normal",)}
VIEWS = [(code, scheme) for code in CODES for scheme in (("light", "dark") if code == SOURCE else ("light",))]
EACH = [(page, state) for page in PAGES for state in STATES[page.face]]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the guides: a page from an element on, so many pixels high."""

    name: str
    path: str
    height: int
    role: str = "officer"
    face: Face = Face.SITE
    campaign: bool = False
    """At a coordinator: of a campaign of indicators."""
    language: str = SOURCE
    scheme: str = "light"
    width: int = 1280
    top: str = ""
    """What stands at the top, as a selector; empty: the page's beginning."""
    press: str = ""
    """A button to be pressed first, as a selector."""
    until: str = "h1"
    """What must be there before the picture is taken, as a selector."""


GUIDE = (
    Picture("overview", "/", 1060),
    Picture("overview.fr", "/", 1060, language="fr"),
    Picture("overview-dark", "/", 1060, scheme="dark"),
    Picture("overview-phone", "/", 860, width=360),
    Picture("study", "/studies/{digest}", 1400, top="#part-leaves"),
    Picture("study.fr", "/studies/{digest}", 1400, top="#part-leaves", language="fr"),
    Picture("decide", "/studies/{digest}/decide", 1010),
    Picture("decide.fr", "/studies/{digest}/decide", 1010, language="fr"),
    Picture("budget", "/budget/{domain}", 1130),
    Picture("check", "/audit/verify", 900, press="form[action='/audit/verify'] button", until="text=The ledger holds"),
    Picture("papers", "/papers", 900),
    Picture("indicators", "/studies/{digest}/indicators", 1830, "researcher", Face.COORDINATOR, campaign=True),
    Picture(
        "indicators-phone",
        "/studies/{digest}/indicators",
        1140,
        "researcher",
        Face.COORDINATOR,
        campaign=True,
        width=360,
        top="#figures",
    ),
    Picture("coordinator-study", "/studies/{digest}", 1030, role="coordinator", face=Face.COORDINATOR),
)
COLOURS = 128
"""A page has few, so a picture takes a third of its bytes; the rare ones (a warning's red) must not be lost."""

THUMBNAIL = (
    '<figure><a href="{name}"><img src="{name}" alt="" loading="lazy"></a><figcaption>{name}</figcaption></figure>'
)
INDEX = """<!doctype html><meta charset="utf-8"><title>Pages of the console</title>
<style>
body {{ font: 14px/1.4 system-ui; margin: 2rem; }}
figure {{ display: inline-block; margin: 0 1rem 1rem 0; width: 220px; vertical-align: top; }}
img {{ width: 100%; max-height: 260px; object-fit: cover; object-position: top; border: 1px solid #ccc; }}
figcaption {{ font-size: 11px; overflow-wrap: anywhere; }}
</style>
{sections}
"""


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[Path]:
    """An empty folder for the pictures, and their index when all are taken."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    yield FOLDER
    named: dict[str, list[str]] = {}
    for picture in sorted(FOLDER.glob("*.png")):
        named.setdefault("-".join(picture.stem.split("-")[:-4]), []).append(picture.name)
    sections = [
        f"<h2>{html.escape(title)}</h2>" + "".join(THUMBNAIL.format(name=html.escape(name)) for name in names)
        for title, names in named.items()
    ]
    (FOLDER / "index.html").write_text(INDEX.format(sections="\n".join(sections)))
    print(f"\n{sum(map(len, named.values()))} pictures: {FOLDER / 'index.html'}")


@pytest.fixture(scope="module")
def places(fresh: Any, shown: Any, alarm: Any, hub: Any) -> dict[tuple[Face, str], Any]:
    return {
        (Face.SITE, "empty"): fresh,
        (Face.SITE, "normal"): shown,
        (Face.SITE, "alarm"): alarm,
        (Face.COORDINATOR, "normal"): hub,
    }


def take(window: Any, name: str) -> None:
    """A picture at each width; the page is as long as it is."""
    for width in WIDTHS:
        window.set_viewport_size({"width": width, "height": 800})
        window.wait_for_timeout(60)
        window.screenshot(path=FOLDER / f"{name}-{width}.png", full_page=True)


def speak(world: Any, role: str, language: str) -> None:
    """Choose the account's language: a draft is never offered unasked."""
    engine = open_console(world.path)
    Accounts(engine, world.face).choose_language(role, language)
    engine.dispose()


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("page", "state"), EACH, ids=lambda one: getattr(one, "path", one))
def test_a_page_is_pictured(page: Any, state: str, places: Any, visits: Any, helpers: Any) -> None:
    world = places[page.face, state]
    if "{" in page.path and not world.examples:
        return
    role = next(role.value for role in ROLES[page.face] if role in page.roles)
    name = re.sub(r"\W+", "-", page.path.strip("/")).strip("-") or "overview"
    for language, scheme in VIEWS:
        speak(world, role, language)
        with visits.page(world, role, scheme=scheme, language=language) as window:
            window.goto(helpers.filled(page.path, world))
            window.wait_for_timeout(150)
            take(window, f"{page.face.value}-{name}-{state}-{language}-{scheme}")
    speak(world, role, SOURCE)


@pytest.mark.server("chromium")
def test_the_login_and_an_error_are_pictured(shown: Any, visits: Any) -> None:
    for language, scheme in VIEWS:
        with visits.page(shown, None, scheme=scheme, language=language) as window:
            window.goto("/login")
            take(window, f"site-login-normal-{language}-{scheme}")
            window.goto("/nowhere")
            take(window, f"site-error-normal-{language}-{scheme}")


@pytest.mark.server("chromium")
@pytest.mark.parametrize("picture", GUIDE, ids=lambda picture: picture.name)
def test_a_picture_of_the_guide_is_taken(
    picture: Picture, visits: Any, helpers: Any, request: pytest.FixtureRequest
) -> None:
    coordinator = "live_hub" if picture.campaign else "hub"
    world: Any = request.getfixturevalue("friendly" if picture.face is Face.SITE else coordinator)
    speak(world, picture.role, picture.language)
    shape = {"scheme": picture.scheme, "width": picture.width, "language": picture.language}
    with visits.page(world, picture.role, **shape) as window:
        window.set_viewport_size({"width": picture.width, "height": picture.height})
        window.goto(helpers.filled(picture.path, world))
        if picture.press:
            window.click(picture.press)
        window.wait_for_selector(picture.until, timeout=60_000)
        if picture.top:
            window.evaluate("selector => document.querySelector(selector).scrollIntoView()", picture.top)
            window.evaluate("window.scrollBy(0, -24)")
        window.wait_for_timeout(400)
        taken = Image.open(io.BytesIO(window.screenshot()))
    place = FOLDER / "guide" / f"{picture.name}.png"
    place.parent.mkdir(exist_ok=True)
    few = taken.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(place, optimize=True)
    assert place.stat().st_size < 120_000
    speak(world, picture.role, SOURCE)
