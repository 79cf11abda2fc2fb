"""How fast every page of both consoles is painted, on loopback, in a real Chromium without its cache.

First contentful paint of each page, with its bytes over the wire, beside that of a picture alone which the same
server sends: what a browser takes to paint anything at all. The worlds are those of the tests.
"""

import argparse
import importlib.util
import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from wardround.console.web.pages import PAGES
from wardround.console.web.roles import ROLES

PAINT = """() => new Promise(done => new PerformanceObserver(list => {
    for (const one of list.getEntries()) if (one.name === "first-contentful-paint") done(one.startTime);
}).observe({type: "paint", buffered: true}))"""
FLOOR = "/static/icon.svg"
MOST_MILLISECONDS = 300.0


def worlds() -> Any:
    """The consoles of the tests: their file is no module that could be imported by name."""
    path = Path(__file__).parents[1] / "tests" / "console" / "web" / "conftest.py"
    spec = importlib.util.spec_from_file_location("console_worlds", path)
    assert spec is not None and spec.loader is not None
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@contextmanager
def shown(tests: Any) -> Iterator[dict[str, Any]]:
    """A hospital's and a coordinator's console with something on every page."""
    with ExitStack() as kept:
        site = kept.enter_context(tests.site_world(kept.enter_context(tests.short_folder()), full=True))
        hub = kept.enter_context(contextmanager(inspect.unwrap(tests.hub))())
        yield {"site": site, "coordinator": hub}


def painted(visits: Any, world: Any, role: str, path: str, times: int) -> tuple[float, int]:
    """(median milliseconds until something of the page is seen, bytes over the wire), each time in a new browser."""
    found, size = [], 0
    for _ in range(times):
        with visits.page(world, role) as window:
            sizes: list[int] = []
            wire = window.context.new_cdp_session(window)
            wire.send("Network.enable")
            wire.on("Network.loadingFinished", lambda event, sizes=sizes: sizes.append(int(event["encodedDataLength"])))
            answer = window.goto(path)
            assert answer.status == 200, (path, answer.status)
            found.append(float(window.evaluate(PAINT)))
            size = sum(sizes)
    return median(found), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each page once instead of 5 times")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    tests, times, rows = worlds(), 1 if arguments.quick else 5, []
    if not any(map(shutil.which, tests.CHROMIUM)):
        print("left out: there is no Chromium on this machine (scripts/test-servers installs it)")
        return
    with shown(tests) as places, contextmanager(inspect.unwrap(tests.browser))() as browser:
        visits = tests.Visits(browser)
        for page in PAGES:
            world = places[page.face.value]
            role = next(role.value for role in ROLES[page.face] if role in page.roles)
            painted(visits, world, role, FLOOR, 1)
            floor, _ = painted(visits, world, role, FLOOR, times)
            paint, size = painted(visits, world, role, tests.filled(page.path, world), times)
            case = f"{page.face.value} {page.path}"
            rows.append(row(case, "first paint", paint, "ms", "an icon of the same server", paint / floor))
            rows.append(row(case, "transferred", size / 1000, "kB", "", None))
            late = "  SLOWER THAN 300 ms" if paint > MOST_MILLISECONDS else ""
            print(f"{case:<34} {paint:>7.0f} ms  {paint / floor:>5.2f}x of an icon  {size / 1000:>6.1f} kB{late}")
        visits.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def row(case: str, metric: str, value: float, unit: str, against: str, ratio: float | None) -> dict[str, object]:
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


if __name__ == "__main__":
    main()
