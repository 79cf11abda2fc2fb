"""Pictures of every page, for people to look through: ``make screenshots`` writes them into ``screenshots/``.

Each page of the registry, empty, normal and in alarm; English in light and dark on a desk and a telephone, the other
languages in light. A page that is added to ``PAGES`` is pictured without another line. Nothing is tested here; the file
is collected only when it is named.
"""

import html
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
