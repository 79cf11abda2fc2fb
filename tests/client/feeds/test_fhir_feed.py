"""A FHIR server that is polled: whatever moves between its pages, and wherever its links lead."""

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wardround.client.feeds import fhir_pages
from wardround.client.feeds.fhir import FhirFeed
from wardround.client.feeds.settings import FhirFeedSource
from wardround.protocol.errors import Unavailable, UsageError

KEY = bytes(range(32))
T = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECRET = "Fernsby-4711"

Counting = Callable[[], Any]


class Server:
    """Encounters by id, searched as FHIR says; pages are counted anew at each question, which is allowed and worst."""

    def __init__(self) -> None:
        self.encounters: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.authorised: list[str | None] = []
        self.between: Callable[[], None] = lambda: None
        self.answer: Callable[[str], tuple[int, bytes]] | None = None
        self.location = ""
        self.url = ""

    def put(self, name: str, updated: datetime, **changes: Any) -> None:
        version = int(self.encounters.get(name, {"meta": {"versionId": "0"}})["meta"]["versionId"]) + 1
        self.encounters[name] = {
            "resourceType": "Encounter",
            "id": name,
            "meta": {"versionId": str(version), "lastUpdated": updated.isoformat(timespec="milliseconds")},
            "status": "in-progress",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
            "subject": {"reference": f"Patient/p-{name}"},
            "period": {"start": "2026-03-01T10:00:00+01:00"},
        } | changes

    def page(self, path: str) -> tuple[int, bytes]:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        assert asked["_sort"] == "_lastUpdated"
        since = datetime.fromisoformat(asked.get("_lastUpdated", "ge0001-01-01T00:00:00+00:00").removeprefix("ge"))
        stamps = {name: datetime.fromisoformat(one["meta"]["lastUpdated"]) for name, one in self.encounters.items()}
        found = sorted((stamp, name) for name, stamp in stamps.items() if stamp >= since)
        first, many = int(asked.get("from", "0")), int(asked["_count"])
        entries = [{"resource": self.encounters[name]} for _, name in found[first : first + many]]
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "entry": entries, "link": []}
        if first + many < len(found):
            asked["from"] = str(first + many)
            bundle["link"].append({"relation": "next", "url": self.next(asked)})
        return 200, json.dumps(bundle).encode()

    def next(self, asked: dict[str, str]) -> str:
        from urllib.parse import urlencode

        return f"{self.url}/Encounter?{urlencode(asked)}"


@contextmanager
def running(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if server.asked:
                server.between()
            server.asked.append(self.path)
            server.authorised.append(self.headers.get("Authorization"))
            status, body = server.answer(self.path) if server.answer else server.page(self.path)
            self.send_response(status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}/fhir"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as found:
        yield found


@pytest.fixture
def feed(server: Server, tmp_path: Path) -> Callable[..., FhirFeed]:
    (tmp_path / "token").write_text("s3cret")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "fhir.yaml").write_text(f"url: {server.url}\ntoken_file: token\n")

    def made(at_once: int = 1000, now: datetime = T + timedelta(days=1), **changes: Any) -> FhirFeed:
        settings = {"name": "w", "kind": "fhir", "path": "x", "overlap_minutes": 60, "page": 5} | changes
        return FhirFeed(FhirFeedSource.model_validate(settings), tmp_path / "fhir.yaml", KEY, lambda: now, at_once)

    return made


def told(found: Any) -> list[tuple[str, float, str]]:
    return [(event.identifier, event.amount, event.at.strftime("%d %H:%M")) for event in found]


def test_an_encounter_is_an_arrival_by_its_class_and_a_discharge(server: Server, feed: Callable[..., FhirFeed]) -> None:
    stay = {"start": "2026-03-01T10:00:00+01:00", "end": "2026-03-02"}
    waited = [
        {"status": "arrived", "period": {"start": "2026-03-01T10:00:00+01:00"}},
        {"status": "in-progress", "period": {"start": "2026-03-01T10:45:30+01:00"}},
    ]
    for minute, (name, changes) in enumerate(
        [
            ("visit", {}),
            ("stay", {"class": {"code": "IMP"}, "status": "finished", "period": stay}),
            ("emergency", {"class": {"code": "EMER"}, "statusHistory": waited}),
            ("booked", {"status": "planned"}),
            ("coming", {"class": {"code": "PRENC"}}),
            ("own", {"class": {"code": "DAY"}}),
        ]
    ):
        server.put(name, T + minute * MINUTE, **changes)
    events, mark = feed(time_zone="Europe/Berlin", classes={"DAY": "admission"}).poll(None)
    assert told(events) == [
        ("visit|visit", 1.0, "01 09:00"),
        ("admission|stay", 1.0, "01 09:00"),
        ("discharge|stay", 1.0, "01 23:00"),
        ("emergency|emergency", 1.0, "01 09:00"),
        ("waiting|emergency", 45.5, "01 09:45"),
        ("admission|own", 1.0, "01 09:00"),
    ]
    assert events[0].patient == "p-visit" and feed().poll(mark)[0] == []
    assert server.authorised == ["Bearer s3cret"] * len(server.asked)


def test_corrections_and_errors_of_entry_come_under_the_same_identifier(
    server: Server, feed: Callable[..., FhirFeed], counted: Counting
) -> None:
    mine, inpatient = counted(), {"class": {"code": "IMP"}}
    period = {"start": "2026-03-01T10:00:00Z", "end": "2026-03-01T18:00:00Z"}
    server.put("a", T, **inpatient, status="finished", period=period)
    server.put("b", T, **inpatient)
    mine.drain(feed())
    server.put("a", T + MINUTE, **inpatient)
    server.put("b", T + MINUTE, **inpatient, status="entered-in-error", period={})
    mine.drain(feed())
    assert {name: found[3] for name, found in mine.last.items()} == {
        "admission|a": 1.0, "discharge|a": 0.0, "admission|b": 0.0, "discharge|b": 0.0,
    }  # fmt: skip


def test_pages_are_followed_to_the_end_and_ties_beyond_a_page_lose_nothing(
    server: Server, feed: Callable[..., FhirFeed], counted: Counting
) -> None:
    for number in range(23):
        server.put(f"n{number:02}", T)
    mine = counted().drain(feed(at_once=4))
    assert len(mine.given) == len(mine.last) == 23
    server.put("late", T - 30 * MINUTE)
    server.put("new", T + 90 * MINUTE)
    assert mine.poll(feed()) == 2
    assert mine.poll(feed()) == 0
    # Nor is what has the stamp of a whole page in the way of what follows.
    server.put("newer", T + 300 * MINUTE)
    mine.drain(feed())
    server.asked.clear()
    mine.drain(feed())
    assert len(mine.given) == 26 and len(server.asked) <= 2


def test_an_encounter_that_slips_to_a_page_that_was_read_is_not_lost(
    server: Server, feed: Callable[..., FhirFeed], counted: Counting
) -> None:
    for number in range(10):
        server.put(f"n{number}", T + number * 30 * MINUTE)

    def move() -> None:
        if len(server.asked) == 1:
            # The sixth becomes the fifth, and the second page begins behind it.
            server.put("n0", T + 600 * MINUTE)

    server.between = move
    mine = counted()
    assert mine.poll(feed()) == 10 and "visit|n5" not in mine.last
    mine.drain(feed())
    assert len(mine.last) == 10 and len(mine.given) == 11


@pytest.mark.parametrize("seed", range(6))
def test_encounters_that_change_while_pages_are_read_are_neither_lost_nor_doubled(
    server: Server, feed: Callable[..., FhirFeed], counted: Counting, seed: int
) -> None:
    draw, mine = random.Random(seed), counted()
    clock, states = T, list[str]()
    for number in range(60):
        clock += draw.choice([0, 1, 20]) * MINUTE
        server.put(f"n{number}", clock)

    def move() -> None:
        nonlocal clock
        clock += MINUTE
        for name in draw.sample(sorted(server.encounters), 3):
            # Each state has a beginning of its own, so that none may be given twice.
            begun = {"start": (T - len(states) * MINUTE).isoformat()}
            states.append(name)
            server.put(name, clock, status="cancelled" if draw.random() < 0.3 else "in-progress", period=begun)

    server.between = move
    for _ in range(6):
        mine.poll(feed(at_once=12, now=clock), crash=bool(seed % 2) and draw.random() < 0.4)
    server.between = lambda: None
    mine.drain(feed(at_once=12, now=clock))
    assert {name.removeprefix("visit|"): found[3] for name, found in mine.last.items()} == {
        name: float(one["status"] != "cancelled") for name, one in server.encounters.items()
    }
    if not seed % 2:
        assert len({(event.identifier, event.amount, event.at) for event in mine.given}) == len(mine.given)


def test_a_page_at_another_origin_is_refused_and_never_asked(server: Server, feed: Callable[..., FhirFeed]) -> None:
    for number in range(8):
        server.put(f"n{number}", T)
    with running(Server()) as other:
        for address in (
            other.url,
            server.url.replace("127.0.0.1", "localhost"),
            server.url.replace("http:", "https:"),
            "//evil.example",
            "http://[",
            other.url.replace("//", "//x:y@"),
            f"{server.url}@{urlsplit(other.url).netloc}".replace("/fhir", ""),
        ):
            server.next = lambda asked, address=address: f"{address}/Encounter?from=5"  # type: ignore[method-assign]
            with pytest.raises(UsageError, match="next page"):
                feed().poll(None)
        assert other.asked == []
        server.answer, server.location = lambda path: (302, b""), f"{other.url}/Encounter"
        with pytest.raises(UsageError, match="another address"):
            feed().poll(None)
        assert other.asked == []


def test_the_first_poll_begins_where_the_site_says(server: Server, feed: Callable[..., FhirFeed]) -> None:
    server.put("history", T - MINUTE)
    server.put("first", T)
    events, _ = feed(since=T).poll(None)
    assert [event.identifier for event in events] == ["visit|first"]
    assert "_lastUpdated=ge2026-03-01T12%3A00%3A00.000Z" in server.asked[0]


def test_a_relative_link_is_the_servers_own(server: Server, feed: Callable[..., FhirFeed]) -> None:
    for number in range(8):
        server.put(f"n{number}", T)
    server.next = lambda asked: "?_sort=_lastUpdated&_count=5&from=5"  # type: ignore[method-assign]
    assert len(feed().poll(None)[0]) == 8


def test_pages_without_an_end_are_left(server: Server, feed: Callable[..., FhirFeed]) -> None:
    for number in range(8):
        server.put(f"n{number}", T)
    server.next = lambda asked: "?_sort=_lastUpdated&_count=5"  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="no end"):
        feed().poll(None)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (200, SECRET.encode(), UsageError, "no search result"),
        (200, b'{"resourceType": "Patient"}', UsageError, "no search result"),
        (200, b'{"resourceType": "Bundle", "entry": 7}', UsageError, "no search result"),
        (200, b"[" * 100_000, UsageError, "no search result"),
        (404, SECRET.encode(), UsageError, "no search result"),
        (401, SECRET.encode(), UsageError, "refuses the user"),
        (503, SECRET.encode(), Unavailable, "status 503"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_two_lines_without_its_content(
    server: Server, feed: Callable[..., FhirFeed], caplog: pytest.LogCaptureFixture,
    status: int, body: bytes, kind: type[Exception], said: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    server.answer = lambda path: (status, body)
    with pytest.raises(kind, match=said) as error:
        feed().poll(None)
    assert SECRET not in error.value.lines() + caplog.text  # type: ignore[attr-defined]
    assert server.url not in error.value.lines() + caplog.text  # type: ignore[attr-defined]


def test_a_page_that_does_not_end_is_cut_off(
    server: Server, feed: Callable[..., FhirFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhir_pages, "LONGEST_FILE", 1000)
    server.answer = lambda path: (200, b" " * 5000)
    with pytest.raises(UsageError, match="a page has more"):
        feed().poll(None)


def test_a_server_that_does_not_sort_is_refused(server: Server, feed: Callable[..., FhirFeed]) -> None:
    for number in range(8):
        server.put(f"n{number}", T - number * MINUTE)
    whole = [{"resource": one} for one in server.encounters.values()]
    server.answer = lambda path: (200, json.dumps({"resourceType": "Bundle", "entry": whole}).encode())
    with pytest.raises(UsageError, match="does not sort"):
        feed().poll(None)


def test_an_encounter_that_cannot_be_used_is_counted_and_says_nothing(
    server: Server, feed: Callable[..., FhirFeed]
) -> None:
    for minute, (name, changes) in enumerate(
        [
            ("good", {}),
            ("nobody", {"subject": None}),
            ("strange", {"class": {"code": SECRET}}),
            ("shape", {"class": [SECRET]}),
            ("day", {"period": {"start": "2026"}}),
            ("begins", {"period": {}}),
            ("state", {"status": SECRET}),
        ]
    ):
        server.put(name, T + minute * MINUTE, **changes)
    server.put("second", T)
    found = json.loads(server.page("?_sort=_lastUpdated&_count=100")[1])
    found["entry"] += [{"resource": {"resourceType": "Encounter", "id": SECRET}}, 7]
    server.answer = lambda path: (200, json.dumps(found).encode())
    asked = feed()
    events, mark = asked.poll(None)
    assert {name for name, *_ in told(events)} == {"visit|good", "visit|second"}
    assert sum(asked.set_aside.values()) == 8
    assert SECRET not in f"{asked.set_aside}{events}" and SECRET.encode() not in mark


def test_a_broken_poll_gives_nothing_and_the_next_one_everything(
    server: Server, feed: Callable[..., FhirFeed], counted: Counting
) -> None:
    mine = counted()
    for number in range(12):
        server.put(f"n{number:02}", T + number * MINUTE)
    server.answer = lambda path: (503, b"") if "from=10" in path else server.page(path)
    with pytest.raises(Unavailable):
        mine.poll(feed())
    server.answer = None
    assert len(mine.drain(feed()).given) == 12
