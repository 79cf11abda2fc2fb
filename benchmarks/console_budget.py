"""The console's budget and release pages with a ledger of 100,000 entries: time to answer, size, first paint.

The ledger is that of ``benchmarks/ledger.py``, of ten plans, an entry an hour (eleven years), with receipts for its
last rounds. Folding it is timed apart, since the console does it once, when it starts. Pages are asked over loopback by
a client that is logged in; beside each stands the goal. First paint is Chromium's own ``first-contentful-paint``.
"""

import argparse
import gzip
import json
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import httpx
import pyotp
import uvicorn
from ledger import new_site, reservation, write

from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.receipts import Receipts
from wardround.client.store.roster import PinnedRoster
from wardround.console.web.accounts import Accounts
from wardround.console.web.app import make_app
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Names
from wardround.console.web.store import open_console
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Release, Start
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import FIRST, Receipt, SiteLine
from wardround.simulations.consortium import simulated_roster

PLANS = [f"{number:02x}" * 32 for number in range(10, 20)]
PASSWORD = "four words that nobody guesses"
GOAL_MS, GOAL_BYTES, GOAL_PAINT_MS = 200, 100_000, 300
VIEWS, PAINTS, RECEIPTS = 20, 7, 300


class Hours:
    """A clock that goes on an hour each time it is asked."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(hours=1)
        return self.now


def receipts(site: SiteFolder, rounds: int) -> None:
    """Receipts of the last rounds, signed by the coordinator, another hospital and this one, under a pinned roster."""
    own, coordinator, east = site.identity(), Identity.generate(COORDINATOR), Identity.generate("east")
    with closing(open_store(site.database)) as store:
        roster = simulated_roster([own, east], coordinator, (), datetime.now(UTC).date())
        PinnedRoster(store, own.public).pin(roster.canonical, roster.digest)
        for number in range(max(1, rounds - RECEIPTS), rounds + 1):
            lines = tuple(
                SiteLine(site=name, outcome="replied", detail="", rounds_asked=number, epsilon_at_most=1.0)
                for name in ("east", "north")
            )
            receipt = Receipt(
                study="benchmark", plan=PLANS[number % len(PLANS)], roster=roster.digest, roster_epoch=1,
                round_number=number, attempt=1, at="2026-11-29T08:00:00Z", state="closed", model_before="0" * 64,
                model_after="1" * 64, sites=lines, voided_by=(), conditions="", previous=FIRST,
            )  # fmt: skip
            Receipts(store).keep(receipt.signed_by(coordinator).signed_by(east).signed_by(own))


@contextmanager
def served(app: Any, listening: socket.socket) -> Iterator[str]:
    """The address of a console that answers on ``listening``."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def visitor(address: str) -> httpx.Client:
    """A client that sends its cookies without TLS too, as browsers do on the same machine."""
    client = httpx.Client(base_url=address, follow_redirects=True, headers={"origin": address}, timeout=60)

    def with_cookies(request: httpx.Request) -> None:
        request.headers["cookie"] = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)

    client.event_hooks["request"].append(with_cookies)
    return client


def logged_in(client: httpx.Client, secret: str) -> None:
    """Both steps of the login."""
    steps = (("/login", {"name": "officer", "password": PASSWORD}), ("/login/code", {"code": pyotp.TOTP(secret).now()}))
    for path, fields in steps:
        found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
        assert found is not None
        client.post(path, data=fields | {"csrf": found[1]}).raise_for_status()


def timed(client: httpx.Client, path: str) -> tuple[float, float, bytes]:
    """(milliseconds, milliseconds of processor time of server and client together, content) of one answer."""
    began, started = process_time(), perf_counter()
    answer = client.get(path)
    milliseconds, busy = 1000 * (perf_counter() - started), 1000 * (process_time() - began)
    assert answer.status_code == 200, (path, answer.status_code)
    return milliseconds, busy, answer.content


def bytes_of(client: httpx.Client, page: bytes) -> tuple[int, int]:
    """(bytes, bytes as gzip would make them) of a page and all that it loads."""
    loaded = sorted(set(re.findall(rb'(?:href|src)="(/static/[^"]+)"', page)))
    parts = [page, *(client.get(path.decode()).content for path in loaded)]
    return sum(map(len, parts)), sum(len(gzip.compress(part)) for part in parts)


def paints(address: str, cookies: httpx.Cookies, paths: dict[str, str]) -> dict[str, float]:
    """Median milliseconds to the first contentful paint of each page, each time in a new window."""
    from playwright.sync_api import sync_playwright

    program = next(found for name in ("chromium", "chromium-browser") if (found := shutil.which(name)))
    script = "performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)[0]"
    kept = [
        {"name": one.name, "value": str(one.value), "domain": "127.0.0.1", "path": "/", "secure": True}
        for one in cookies.jar
    ]
    found: dict[str, float] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, path in paths.items():
            times = []
            for _ in range(PAINTS + 1):
                context = browser.new_context(base_url=address)
                context.add_cookies(kept)
                window = context.new_page()
                window.goto(path)
                assert window.url in (path, address + path), window.url
                # The page's policy forbids what Playwright's own way of waiting would do.
                while (painted := window.evaluate(script)) is None:
                    time.sleep(0.01)
                times.append(painted)
                context.close()
            found[name] = median(times[1:])
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 entries instead of 100,000; under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    rounds = 3_334 if arguments.quick else 33_334
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="wr-") as folder:
        site, ledger = new_site(Path(folder) / "large", PLANS)
        ledger.close()
        ledger = site.ledger(Hours())
        write(ledger, rounds, PLANS)
        receipts(site, rounds)
        case = f"{ledger.state.size:,} entries"
        engine = open_console(site.path)
        secret = Accounts(engine, Face.SITE, time.time).add("officer", Role.OFFICER.value, PASSWORD)
        engine.dispose()
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        app: Any = make_app(site.path, Face.SITE, Names.of(("127.0.0.1",), listening.getsockname()[1], tls=False))
        started = perf_counter()
        app.console.queries.warm()
        rows.append(row(case, "start: fold and epsilons, once", perf_counter() - started, "s", None))
        first = ledger.blocks()[0]
        charge = app.console.queries.budgets.study("training", first.plan, 1).charges.items[0].number
        release = app.console.queries.releases.view("", 1).sent.items[0].number
        paths = {
            "budget": "/budget",
            "a domain": "/budget/training",
            "a study": f"/budget/training/{first.plan}?page=40",
            "one charge": f"/budget/training/{first.plan}/{charge}",
            "releases": "/releases",
            "one release": f"/releases/{release}",
        }
        with served(app, listening) as address:
            client = visitor(address)
            logged_in(client, secret)
            for name, path in paths.items():
                seen = [timed(client, path) for _ in range(VIEWS + 1)]
                rows.append(row(case, f"{name}: first view", seen[0][0], "ms", GOAL_MS))
                rows.append(
                    row(case, f"{name}: further views, median", median(ms for ms, _, _ in seen[1:]), "ms", GOAL_MS)
                )
                rows.append(
                    row(case, f"{name}: further views, slowest", max(ms for ms, _, _ in seen[1:]), "ms", GOAL_MS)
                )
                busy = median(spent for _, spent, _ in seen[1:])
                rows.append(row(case, f"{name}: further views, processor", busy, "ms", GOAL_MS))
                whole, packed = bytes_of(client, seen[-1][2])
                rows.append(row(case, f"{name}: sent", whole, "bytes", GOAL_BYTES))
                rows.append(row(case, f"{name}: as gzip would send it", packed, "bytes", GOAL_BYTES))
            fact = reservation(rounds + 1, PLANS[0])
            assert ledger.reserve(fact) is None
            ledger.record(Start(block=fact.block))
            ledger.record(Release(block=fact.block, attempt=1, content="11" * 32))
            # Two new sums for the accountant, the study's and the domain's: no page knows these before.
            rows.append(
                row(case, "a domain: first view after a round", timed(client, paths["a domain"])[0], "ms", None)
            )
            painted = paints(address, client.cookies, paths | {"one word, no server": "data:text/html,word"})
            for name, milliseconds in painted.items():
                rows.append(row(case, f"{name}: first contentful paint", milliseconds, "ms", GOAL_PAINT_MS))
            client.close()
        ledger.close()
        listening.close()
    for each in rows:
        against = "" if each["ratio"] is None else f"{each['ratio']:.2f} of the {each['against']}"
        print(f"{case:>16}  {each['metric']:<42} {each['value']:>10,.1f} {each['unit']:<6} {against}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def row(case: str, metric: str, value: float, unit: str, goal: int | None) -> dict[str, object]:
    against, ratio = (None, None) if goal is None else (f"goal of {goal:,} {unit}", value / goal)
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


if __name__ == "__main__":
    main()
