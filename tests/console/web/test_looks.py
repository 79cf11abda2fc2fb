"""Every page in a real browser: by keyboard alone, at every width, on paper, enlarged, and in forced colours.

A page that is added to ``PAGES`` is tested here without another line.
"""

from typing import Any

import pytest

from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES, Face

WIDTHS = (320, 360, 768, 1280, 3840)
PAPER = 718
"""Pixels of an A4 sheet between its margins."""

MOST_BYTES = 100_000
EACH = [(page, role) for page in PAGES for role in ROLES[page.face] if role in page.roles]
FIRST = [next(pair for pair in EACH if pair[0] is page) for page in PAGES]

SHIFTS = """window.moved = 0; new PerformanceObserver(list => {
    for (const one of list.getEntries()) window.moved += one.value;
}).observe({type: "layout-shift", buffered: true})"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_OFF = """() => [...document.querySelectorAll("main, main *")].filter(one => {
    const style = getComputedStyle(one);
    return style.overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 2
        && one.checkVisibility();
}).map(one => one.outerHTML.slice(0, 200))"""
ON_PAPER = """() => [...document.querySelectorAll(".side, nav, form, button, .skip")]
    .filter(one => one.checkVisibility()).map(one => one.outerHTML.slice(0, 200))"""
MOVES = """() => document.getAnimations().length + [...document.querySelectorAll("*")].filter(one => {
    const style = getComputedStyle(one);
    return style.animationName !== "none" || style.transitionDuration.split(", ").some(time => parseFloat(time) > 0);
}).length"""
ONE_COLOUR = """() => [
    ...document.querySelectorAll(
        "button, .button, input:not([type=hidden], [type=range], [aria-hidden]), select, textarea, .badge"
    )
].filter(one => one.checkVisibility() && getComputedStyle(one).borderTopStyle === "none")
    .map(one => one.outerHTML.slice(0, 200))"""

MAY_FOCUS = """() => {
    const found = [...document.querySelectorAll(
        "a[href], button, input:not([type=hidden]), select, textarea, summary, iframe, video, [tabindex]"
    )].filter(one => one.tabIndex >= 0 && !one.disabled && one.checkVisibility({visibilityProperty: true}));
    const groups = new Set();
    window.mayFocus = found.filter(one => {
        if (one.type !== "radio") return true;
        const group = found.filter(other =>
            other.type === "radio" && other.name === one.name && other.form === one.form);
        return one.checked || (!group.some(other => other.checked) && one === group[0]);
    });
    return window.mayFocus.length;
}"""
FOCUSED = """() => {
    const one = document.activeElement;
    if (one === document.body || one === null) return null;
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    let aside = scrollX, down = scrollY;
    for (let up = one.parentElement; up && up !== document.documentElement; up = up.parentElement) {
        aside += up.scrollLeft; down += up.scrollTop;
    }
    const at = document.elementFromPoint(
        Math.min(Math.max(box.left + Math.min(box.width, 40) / 2, 1), innerWidth - 1),
        Math.min(Math.max(box.top + Math.min(box.height, 40) / 2, 1), innerHeight - 1));
    return {
        number: window.mayFocus.indexOf(one),
        what: one.outerHTML.slice(0, 120),
        left: box.left + aside, right: box.right + aside, top: box.top + down, bottom: box.bottom + down,
        parts: one.matches("[type=date], [type=time], [type=datetime-local], [type=month]"),
        fixed: Boolean(one.closest(".side")) || one.matches(".skip"),
        seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth && box.height > 0,
        outlined: (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) || style.boxShadow !== "none",
        free: at !== null && (one.contains(at) || at.contains(one)),
    };
}"""


def ident(one: Any) -> str:
    return f"{one.face.value}:{one.path}" if hasattr(one, "path") else str(getattr(one, "value", one))


def walk(window: Any) -> list[str]:
    """Goes through a page with the Tab key; what is wrong with the walk."""
    expected, faults, seen, before = window.evaluate(MAY_FOCUS), [], [], None
    while len(seen) <= expected:
        window.keyboard.press("Tab")
        now = window.evaluate(FOCUSED)
        if now is None or (seen and now["number"] == seen[0]):
            break
        if seen and now["number"] == seen[-1] and now["parts"]:
            continue  # the day, the month and the year of one field
        if now["number"] in seen:
            faults.append(f"a trap at {now['what']}")
            break
        seen.append(now["number"])
        faults += [f"{what}: {now['what']}" for what in ("seen", "outlined", "free") if not now[what]]
        if before is not None and before["fixed"] is now["fixed"]:
            above = now["bottom"] <= before["top"] and now["left"] < before["right"]
            back = now["right"] <= before["left"] and now["top"] < before["bottom"] and now["bottom"] > before["top"]
            if above or back:
                faults.append(f"from {before['what']} back to {now['what']}")
        before = now
    missing = set(range(expected)) - set(seen)
    return faults + [window.evaluate(f"window.mayFocus[{one}].outerHTML.slice(0, 120)") for one in sorted(missing)]


def moved(window: Any, path: str) -> float:
    """How far a page's parts moved while it came, at the best of three times.

    A busy machine may paint a table before its last rows are there; what a page moves by itself it moves each time.
    """
    window.add_init_script(SHIFTS)
    found = []
    while len(found) < 3 and 0 not in found:
        window.goto(path)
        window.wait_for_timeout(300)
        found.append(window.evaluate("window.moved"))
    return float(min(found))


def misfits(window: Any) -> dict[object, Any]:
    """What is wrong with a page at each width, with letters of double size, on paper and in forced colours."""
    found: dict[object, Any] = {}
    for width in WIDTHS:
        window.set_viewport_size({"width": width, "height": 800})
        found[width] = window.evaluate(SIDEWAYS)
    for width in (768, 1280):
        window.set_viewport_size({"width": width, "height": 800})
        window.evaluate("document.documentElement.style.fontSize = '200%'")
        found[f"{width} enlarged"] = window.evaluate(SIDEWAYS)
        window.evaluate("document.documentElement.style.fontSize = ''")
    window.emulate_media(forced_colors="active")
    found["forced colours"] = window.evaluate(ONE_COLOUR)
    window.emulate_media(forced_colors="none", media="print")
    window.set_viewport_size({"width": PAPER, "height": 1000})
    found["wider than paper"] = window.evaluate(SIDEWAYS)
    found["cut off on paper"] = window.evaluate(CUT_OFF)
    found["useless on paper"] = window.evaluate(ON_PAPER)
    window.emulate_media(media="screen", reduced_motion="reduce")
    found["moves"] = window.evaluate(MOVES)
    return {what: fault for what, fault in found.items() if fault}


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("page", "role"), EACH, ids=ident)
def test_a_page_is_walked_with_the_keyboard_alone(page: Any, role: Any, worlds: Any, visits: Any, helpers: Any) -> None:
    world = worlds[page.face.value]
    for width in (1280, 360):
        with visits.page(world, role.value, width=width) as window:
            window.goto(helpers.filled(page.path, world))
            assert walk(window) == [], width


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("page", "role"), FIRST, ids=ident)
def test_the_first_key_leads_past_the_navigation(page: Any, role: Any, worlds: Any, visits: Any, helpers: Any) -> None:
    world = worlds[page.face.value]
    with visits.page(world, role.value) as window:
        window.goto(helpers.filled(page.path, world))
        window.keyboard.press("Tab")
        assert window.evaluate("document.activeElement.getAttribute('href')") == "#main"
        assert window.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        window.keyboard.press("Enter")
        assert window.evaluate("document.activeElement.id") == "main"
        window.keyboard.press("Tab")
        assert window.evaluate("document.activeElement.closest('.side') === null")


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("page", "role"), FIRST, ids=ident)
def test_a_page_fits_every_width_and_paper_and_nothing_moves(
    page: Any, role: Any, worlds: Any, visits: Any, helpers: Any
) -> None:
    world, sizes = worlds[page.face.value], []
    with visits.page(world, role.value) as window:
        wire = window.context.new_cdp_session(window)
        wire.send("Network.enable")
        wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        window.goto(path := helpers.filled(page.path, world))
        for _ in range(200):
            if len(sizes) < 2:  # A busy machine tells late what has been loaded.
                window.wait_for_timeout(300)
        assert len(sizes) >= 2 and sum(sizes) < MOST_BYTES
        assert moved(window, path) == 0
        assert misfits(window) == {}


@pytest.mark.server("chromium")
@pytest.mark.parametrize("state", ["alarm", "new"])
@pytest.mark.parametrize(("page", "role"), [one for one in FIRST if one[0].face is Face.SITE], ids=ident)
def test_a_page_fits_when_all_is_wrong_and_when_there_is_nothing(
    page: Any, role: Any, state: str, alarm: Any, fresh: Any, visits: Any, axe: Any, helpers: Any
) -> None:
    world = alarm if state == "alarm" else fresh
    if "{" in page.path and not world.examples:
        return
    with visits.page(world, role.value) as window:
        path = helpers.filled(page.path, world)
        assert moved(window, path) == 0 and window.goto(path).status == 200 and window.faults == []
        assert axe(window) == [] and misfits(window) == {} and walk(window) == []


@pytest.mark.server("chromium")
def test_what_does_not_fit_or_cannot_be_reached_is_found(worlds: Any, visits: Any) -> None:
    break_it = """() => {
        const main = document.querySelector("main");
        const added = '<div id="wide">w</div><button id="lost">l</button><button id="bare">b</button>';
        main.insertAdjacentHTML("beforeend", added);
        document.getElementById("wide").style.cssText = "width: 1000px; transition: color 1s";
        document.getElementById("bare").style.cssText = "outline: none; border: none; display: block";
        document.getElementById("lost").addEventListener("keydown", event => event.preventDefault());
        document.querySelector("main .scroll").style.width = "100px";
        main.prepend(document.getElementById("bare"));
    }"""
    with visits.page(worlds["site"], "officer") as window:
        window.goto("/")
        assert misfits(window) == {} and walk(window) == []
        window.evaluate(break_it)
        found = misfits(window)
        assert {360, 320, 768, "wider than paper", "cut off on paper", "moves", "forced colours"} <= found.keys()
        window.set_viewport_size({"width": 1280, "height": 800})
        window.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
        window.reload()
        window.evaluate(break_it)
        faults = walk(window)
        assert [fault for fault in faults if "outlined" in fault and "bare" in fault]
        assert [fault for fault in faults if "trap" in fault and "lost" in fault]
