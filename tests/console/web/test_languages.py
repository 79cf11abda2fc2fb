"""Which language a page speaks, and that the languages which are no drafts say everything."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wardround.console.web import i18n
from wardround.console.web.i18n import LANGUAGES, negotiated
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import Face, Role

ROOT = Path(__file__).resolve().parents[3]


def words(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "words.py")], capture_output=True, text=True, check=False
    )


def test_every_word_is_translated_and_none_is_stale() -> None:
    found = words(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    counted = re.search(r"fr: (\d+) of (\d+) messages$", found.stdout, re.M)
    assert counted is not None and counted[1] == counted[2] and int(counted[1]) > 100


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('msgstr "Approuvée"', 'msgstr ""', "fr: missing: Approved"),
        ('msgid "Approved"', 'msgid "Aproved"', "fr: stale: Aproved"),
        ('msgid "Approved"', 'msgid "Entry"\nmsgstr "Écriture"\n\nmsgid "Approved"', "fr: twice: Entry"),
        ('msgstr "Erreur %(status)s"', 'msgstr "Erreur %(state)s"', "fr: other places: Error %(status)s"),
    ],
)
def test_a_gap_in_a_language_is_found(tmp_path: Path, old: str, new: str, fault: str) -> None:
    for part in ("scripts/words.py", "console", "client/doctor"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / part), str(tmp_path / part)], check=True)
    file = tmp_path / "console/web/locale/fr/LC_MESSAGES/console.po"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    found = words(tmp_path)
    assert found.returncode == 1 and fault in found.stdout


def test_a_sentence_that_no_catalogue_could_know_is_found(tmp_path: Path) -> None:
    for part in ("scripts/words.py", "console", "client/doctor"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / part), str(tmp_path / part)], check=True)
    assert words(tmp_path).returncode == 0
    file = tmp_path / "client/doctor/local.py"
    text, old = file.read_text(encoding="utf-8"), 'said("Only %(size)s are free.", size=size)'
    assert text.count(old) == 1
    file.write_text(text.replace(old, 'f"Only {size} are free."'), encoding="utf-8")
    found = words(tmp_path)
    assert found.returncode == 1 and "local.py" in found.stderr and "said() it" in found.stderr


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("de", "fr", "de"),
        (None, "fr-CH, en;q=0.8", "fr"),
        (None, "en;q=0.2, fr;q=0.9", "fr"),
        (None, "de, vi;q=0.9", "en"),
        (None, "fr;q=0, xx", "en"),
        (None, "", "en"),
        (None, "fr;q=high, ;;,,", "en"),
        ("xx", "fr", "fr"),
    ],
)
def test_the_account_chooses_before_the_browser_and_no_draft_is_offered(
    chosen: str | None, accepted: str, language: str
) -> None:
    assert negotiated(chosen, accepted) == language


def test_who_chooses_a_language_keeps_it_and_a_draft_says_so(client_as: Any, helpers: Any, world: Any) -> None:
    client = client_as("auditor")
    assert '<html lang="en">' in client.get("/").text
    for code, words_ in (("fr", "ensemble"), ("de", "Entwurf einer Übersetzung"), ("en", "Overview")):
        shown = client.post("/language", data={"language": code, "back": "/", "csrf": helpers.csrf(client)})
        assert f'<html lang="{code}">' in shown.text and words_ in shown.text
    assert client.post("/language", data={"language": "../x", "csrf": helpers.csrf(client)}).status_code == 400
    client.post("/language", data={"language": "fr", "csrf": helpers.csrf(client)})
    with helpers.new_client(world.app()) as other:
        helpers.log_in(other, world, "auditor")
        assert '<html lang="fr">' in other.get("/").text


def test_a_stranger_reads_the_login_in_the_browsers_language(world: Any, helpers: Any) -> None:
    with helpers.new_client(world.app()) as client:
        assert "Mot de passe" in client.get("/login", headers={"accept-language": "fr"}).text
        assert "existe pas." in client.get("/nowhere", headers={"accept-language": "fr"}).text


def test_going_back_after_the_choice_never_leaves_the_console(client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    for back in ("https://evil.example.org/", "//evil.example", "/nowhere"):
        data = {"language": "en", "back": back, "csrf": helpers.csrf(client)}
        assert client.post("/language", data=data, follow_redirects=False).headers["location"] == "/"


def test_numbers_never_lose_what_an_epsilon_needs() -> None:
    for language in LANGUAGES:
        i18n.use(language.code)
        mark = "." if language.code == "en" else ","
        assert i18n.number_full(1e-7) == f"0{mark}0000001"
        assert i18n.epsilon_up(2.9801) == f"2{mark}99"
    i18n.use("en")


@pytest.mark.server("chromium")
@pytest.mark.parametrize("language", [one.code for one in LANGUAGES if one.code != "en"])
def test_every_language_fits_a_telephone(shown: Any, visits: Any, axe: Any, screenshot: Any, language: str) -> None:
    with visits.page(shown, "officer", width=360) as window:
        window.goto("/")
        window.select_option("#language", language)
        window.click("form[action='/language'] button")
        assert window.get_attribute("html", "lang") == language
        screenshot(window, f"site-overview-{language}-360")
        assert axe(window) == []
        wide = window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        window.select_option("#language", "en")
        window.click("form[action='/language'] button")
        assert wide == 0


EACH = [(page, role) for page in PAGES for role in sorted(page.roles)]


@pytest.mark.parametrize(("page", "role"), EACH, ids=lambda one: str(getattr(one, "path", one)).strip("/"))
def test_who_chooses_a_language_stays_on_the_page(
    page: Page, role: Role, shown: Any, hub: Any, helpers: Any, seats: Any
) -> None:
    """Through the form that the page itself shows, on every page of both consoles, with and without parameters."""
    world = {Face.SITE: shown, Face.COORDINATOR: hub}[page.face]
    client, path = seats(world, role.value), page.path.format(**world.examples)
    fields = re.findall(r'name="(csrf|back)" value="([^"]*)"', client.get(path).text.split('action="/language"', 1)[1])
    form = dict(fields[:2])
    assert form["back"] == path
    answer = client.post("/language", data=form | {"language": "en"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, path)


@pytest.fixture(scope="module")
def seats(helpers: Any) -> Iterator[Any]:
    """One login for each role of each console."""
    made: dict[tuple[str, str], Any] = {}

    def client(world: Any, role: str) -> Any:
        if (key := (str(world.path), role)) not in made:
            made[key] = helpers.new_client(world.app())
            helpers.log_in(made[key], world, role)
        return made[key]

    yield client
    for one in made.values():
        one.close()


def test_no_address_outside_of_the_registry_is_gone_back_to(shown: Any, seats: Any, helpers: Any) -> None:
    client, digest = seats(shown, "officer"), shown.examples["digest"]
    for back in (
        f"/studies/{digest}/x",
        "/studies/",
        "/studies/..",
        f"/studies/{digest}/plan.json",
        "/studies//decide",
    ):
        data = {"language": "en", "back": back, "csrf": helpers.csrf(client)}
        assert client.post("/language", data=data, follow_redirects=False).headers["location"] == "/", back
