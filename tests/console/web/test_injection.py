"""What strangers write on every page: nothing of it runs, hides, reorders, breaks out or makes a page endless.

Every page is opened in a real browser in a hospital where every text that a stranger may write is hostile, and once
more for each hostile study where the page's path names one.
"""

import re
from typing import Any

import pytest

from wardround.console.web.given import MOST_MARKS, given
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import Face, Role

MOST_PIXELS = 30_000
"""Of a page's height on a telephone; the longest plan in words has some thousands."""

INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066\u2067\ufeff\U000e0000-\U000e007f]"
)
"""What must be spelt out. Not the isolates that the console itself sets: U+2068 and U+2069."""

NOT_ISOLATED = """() => [...document.querySelectorAll(".as-given")]
    .filter(one => getComputedStyle(one).unicodeBidi !== "isolate" && one.tagName !== "OPTION")
    .map(one => one.outerHTML)"""
NOT_OURS = """() => [...document.querySelectorAll("body *")].flatMap(one => [...one.attributes]
    .filter(attribute => attribute.name.startsWith("on") || /^\\s*(javascript|data|vbscript):/i.test(attribute.value))
    .map(attribute => one.outerHTML))
    .concat([...document.querySelectorAll(
        "iframe, object, embed, base, meta[http-equiv], script:not([src], [type='application/json'])")]
    .map(one => one.outerHTML))"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEIGHT = "document.documentElement.scrollHeight"
EACH = [(page, role) for page in PAGES if page.face is Face.SITE for role in (Role.OFFICER, Role.IT, Role.AUDITOR)]
EACH = [(page, role) for page, role in EACH if role in page.roles]


def paths(page: Any, hostile: Any, helpers: Any) -> list[str]:
    """The page's own address, and one for each hostile study where it names one."""
    own = [helpers.filled(page.path, hostile)]
    if "{digest}" not in page.path:
        return own
    example = hostile.examples["digest"]
    return [own[0].replace(example, digest) for digest in hostile.studies.values()]


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("page", "role"), EACH, ids=lambda one: getattr(one, "path", None) or one.value)
def test_nothing_that_a_stranger_wrote_runs_or_breaks_a_page(
    page: Any, role: Role, hostile: Any, visits: Any, helpers: Any
) -> None:
    with visits.page(hostile, role.value, width=360) as window:
        asked: list[str] = []
        window.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        for path in paths(page, hostile, helpers):
            answer = window.goto(path)
            assert answer.status == 200, path
            window.wait_for_timeout(50)
            assert asked == [] and window.faults == [], path
            assert window.evaluate(NOT_OURS) == [], path
            assert window.evaluate(NOT_ISOLATED) == [], path
            assert window.evaluate(SIDEWAYS) == 0, path
            assert window.evaluate(HEIGHT) < MOST_PIXELS, path
            text = window.evaluate("document.documentElement.outerHTML")
            assert INVISIBLE.findall(text.replace("\n", "").replace("\t", "")) == [], path
            assert "49 {%" not in text, path


@pytest.mark.server("chromium")
def test_the_overview_shows_each_hostile_title_as_it_was_written(hostile: Any, visits: Any) -> None:
    with visits.page(hostile, "officer") as window:
        window.goto("/")
        text = window.evaluate("document.querySelector('main').innerText")
        for shown in (
            "<script>alert(1)</script>", "</title></textarea><svg onload=alert(3)>", "{{7*7}} {% for a in b %}",
            "\\u202e12\\u2066 (34) \\u200f", "a\\x00b\\x07c\\x1b[31md\\r\\nSet-Cookie: x=1", "=cmd|' /C calc'!A0",
        ):  # fmt: skip
            assert shown in text, shown


@pytest.mark.server("chromium")
def test_what_runs_breaks_out_or_is_not_isolated_is_found(hostile: Any, visits: Any) -> None:
    with visits.page(hostile, "officer", width=360) as window:
        window.goto("/")
        window.evaluate(
            "document.querySelector('main').insertAdjacentHTML('beforeend', '<a href=\"javascript:1\">a</a>')"
        )
        assert len(window.evaluate(NOT_OURS)) == 1
        window.evaluate("document.querySelector('.as-given').style.unicodeBidi = 'normal'")
        assert len(window.evaluate(NOT_ISOLATED)) == 1
        window.evaluate("document.querySelector('h1').append('\\u202e')")
        assert INVISIBLE.findall(window.evaluate("document.querySelector('h1').outerHTML")) == ["\u202e"]


@pytest.mark.server("chromium")
def test_a_title_from_right_to_left_leaves_the_words_and_numbers_around_it_in_their_places(
    hostile: Any, visits: Any
) -> None:
    """The first letter of a sentence stands left of a title within it, and what follows the title right of it."""
    places = """words => {
        const found = [...document.querySelectorAll("strong")].find(one => one.textContent.includes("\\u05d0"));
        found.append(" 5 6");
        found.style.whiteSpace = "nowrap";
        const node = document.createTreeWalker(found, NodeFilter.SHOW_TEXT), lefts = {};
        for (let text; (text = node.nextNode());) for (const word of words) {
            const at = text.data.indexOf(word);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(text, at); range.setEnd(text, at + word.length);
            lefts[word] = range.getBoundingClientRect().left;
        }
        return words.map(word => lefts[word]);
    }"""
    with visits.page(hostile, "officer", width=1280) as window:
        window.goto("/")
        first, title, after = window.evaluate(places, ["The study", "\u05d0", "6"])
        assert first < title < after


def test_marks_are_few_and_right_to_left_is_isolated_and_other_texts_stay_as_they_are() -> None:
    for text in ("Étude de la douleur", "Nghie\u0302\u0323n c\u01b0\u0301u", "=1+1 <b> {{7*7}}", ""):
        assert given(text) == text
    assert given("Z" + "\u0301" * 300 + "y") == "Z" + "\u0301" * MOST_MARKS + "y"
    assert given("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"
    assert given("12 \u0663\u0664") == "\u206812 \u0663\u0664\u2069"
    assert given("\u05d0" * 400, 10) == "\u2068" + "\u05d0" * 9 + "…\u2069"
    assert given("\u2068a\u2069") == "\\u2068a\\u2069"
