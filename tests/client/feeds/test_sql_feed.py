"""A view that is tailed: late commits, ties, clocks and crashes lose nothing and double nothing."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from wardround.client.feeds.settings import SqlFeedSource
from wardround.client.feeds.sql import SqlFeed
from wardround.protocol.errors import Unavailable, UsageError

KEY = bytes(range(32))
T = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECRET = "Fernsby-4711"
NUMBERS = count()

Counting = Callable[[], Any]


class Ward:
    """A table with a view of its own in PostgreSQL, and a feed of it. ``now``: the site's clock."""

    def __init__(self, postgres: Any, folder: Path, stamp: str) -> None:
        self.now, self.postgres, self.folder = T + timedelta(days=1), postgres, folder
        self.name = f"ward{next(NUMBERS)}"
        self.engine = postgres.admin()
        with self.engine.begin() as session:
            columns = f"p text, t timestamptz, k text, n numeric, i text, w {stamp}"
            session.execute(text(f"CREATE TABLE {self.name}_rows ({columns})"))
            view = "p AS patient, t AS at, k AS kind, n AS amount, i AS identifier, w AS arrived"
            session.execute(text(f"CREATE VIEW {self.name} AS SELECT {view} FROM {self.name}_rows"))
            session.execute(text(f"GRANT SELECT ON {self.name} TO reader"))
        self.path = postgres.source(folder)

    def feed(self, at_once: int = 1000, **changes: Any) -> SqlFeed:
        settings = {"name": "w", "kind": "sql", "path": "x", "view": self.name, "overlap_minutes": 60} | changes
        return SqlFeed(SqlFeedSource.model_validate(settings), self.path, KEY, lambda: self.now, at_once)

    def insert(self, session: Connection, identifier: str, arrived: datetime | None, **changes: Any) -> None:
        row = {"p": f"p-{identifier}", "t": T, "k": "visit", "n": 1, "i": identifier, "w": arrived} | changes
        session.execute(text(f"INSERT INTO {self.name}_rows VALUES (:p, :t, :k, :n, :i, :w)"), row)

    def add(self, identifier: str, arrived: datetime | None, **changes: Any) -> None:
        with self.engine.begin() as session:
            self.insert(session, identifier, arrived, **changes)


@pytest.fixture
def ward(postgres: Any, tmp_path: Path) -> Iterator[Callable[..., Ward]]:
    yield lambda stamp="timestamptz": Ward(postgres, tmp_path, stamp)


def names(events: Any) -> list[str]:
    return [event.identifier for event in events]


@pytest.mark.server("postgres")
def test_rows_come_once_in_the_order_of_their_arrival(ward: Callable[..., Ward]) -> None:
    made = ward()
    for name, minute in (("b", 2), ("a", 1), ("c", 3)):
        made.add(name, T + minute * MINUTE, n="1.5", k="waiting")
    events, mark = made.feed().poll(None)
    assert names(events) == ["a", "b", "c"]
    assert (events[0].patient, events[0].at, events[0].kind, events[0].amount) == ("p-a", T, "waiting", 1.5)
    assert made.feed().poll(mark) == ([], mark)
    made.add("a", T + 4 * MINUTE, n=0)
    corrected, _ = made.feed().poll(mark)
    assert [(event.identifier, event.amount) for event in corrected] == [("a", 0.0)]
    # The old watermark gives again what it gave, and what came since.
    assert names(made.feed().poll(None)[0]) == ["a", "b", "c", "a"]


@pytest.mark.server("postgres")
def test_a_row_that_is_committed_late_with_an_earlier_stamp_is_not_passed_over(ward: Callable[..., Ward]) -> None:
    made = ward()
    with made.engine.connect() as slow, slow.begin() as transaction:
        made.insert(slow, "slow", T)
        made.add("quick", T + 30 * MINUTE)
        events, mark = made.feed().poll(None)
        assert names(events) == ["quick"]
        transaction.commit()
    events, mark = made.feed().poll(mark)
    assert names(events) == ["slow"]
    assert names(made.feed().poll(mark)[0]) == []


@pytest.mark.server("postgres")
def test_more_rows_of_one_stamp_than_a_poll_takes_are_all_taken(ward: Callable[..., Ward], counted: Counting) -> None:
    made = ward()
    with made.engine.begin() as session:
        for number in range(25):
            made.insert(session, f"n{number:02}", T)
    whole = counted().drain(made.feed(at_once=4, overlap_minutes=0))
    assert names(whole.given) == [f"n{number:02}" for number in range(25)]


@pytest.mark.server("postgres")
def test_a_clock_that_is_set_back_hides_nothing_and_one_that_ran_ahead_neither(ward: Callable[..., Ward]) -> None:
    made = ward()
    made.add("before", T)
    _, mark = made.feed().poll(None)
    made.add("set back", T - 59 * MINUTE)
    events, mark = made.feed().poll(mark)
    assert names(events) == ["set back"]
    made.now = T + 5 * MINUTE
    made.add("ahead", T + timedelta(days=3650))
    events, mark = made.feed().poll(mark)
    assert names(events) == ["ahead"]
    made.add("put right", T + 6 * MINUTE)
    events, mark = made.feed().poll(mark)
    assert names(events) == ["put right"]
    assert names(made.feed().poll(mark)[0]) == []


@pytest.mark.server("postgres")
def test_what_arrives_later_than_the_overlap_is_not_seen_as_the_page_says(ward: Callable[..., Ward]) -> None:
    made = ward()
    made.add("before", T)
    _, mark = made.feed().poll(None)
    made.add("too late", T - 61 * MINUTE)
    assert names(made.feed().poll(mark)[0]) == []


@pytest.mark.server("postgres")
def test_the_first_poll_begins_where_the_site_says_and_late_rows_of_that_time_still_count(
    ward: Callable[..., Ward],
) -> None:
    made = ward()
    made.add("history", T - MINUTE)
    made.add("first", T)
    feed = made.feed(since=T)
    events, mark = feed.poll(None)
    assert names(events) == ["first"]
    made.add("late", T + MINUTE)
    made.add("history too", T - 2 * MINUTE)
    assert names(feed.poll(mark)[0]) == ["late"]


@pytest.mark.server("postgres")
def test_a_stamp_without_a_zone_is_the_sites_and_the_hour_that_comes_twice_loses_nothing(
    ward: Callable[..., Ward],
) -> None:
    made = ward("timestamp")
    feed = made.feed(time_zone="Europe/Berlin", overlap_minutes=120)
    made.now = T + timedelta(days=300)
    # 25 October 2026: at 3:00 the clock goes back to 2:00.
    made.add("first", datetime(2026, 10, 25, 2, 50))
    events, mark = feed.poll(None)
    made.add("second", datetime(2026, 10, 25, 2, 10))
    more, mark = feed.poll(mark)
    made.add("third", datetime(2026, 10, 25, 3, 5))
    last, mark = feed.poll(mark)
    assert names([*events, *more, *last]) == ["first", "second", "third"] and feed.poll(mark)[0] == []


@pytest.mark.server("postgres")
@pytest.mark.parametrize("seed", range(4))
def test_with_open_transactions_clocks_and_crashes_the_count_is_that_of_the_table(
    ward: Callable[..., Ward], counted: Counting, seed: int
) -> None:
    made, draw, mine = ward(), random.Random(seed), counted()
    slow = [(session := made.engine.connect(), session.begin()) for _ in range(3)]
    expected: dict[str, float] = {}
    pending: list[dict[str, float]] = [{}, {}, {}]
    made.now = T
    for step in range(40):
        made.now += MINUTE
        stamp = made.now - draw.choice([0, 0, 0, 10, 25]) * MINUTE
        name, amount = f"e{step}", float(draw.randrange(3))
        which = draw.randrange(6)
        if which < 3:
            made.insert(slow[which][0], name, stamp, n=amount)
            pending[which][name] = amount
        else:
            made.add(name, stamp, n=amount)
            expected[name] = amount
        if draw.random() < 0.2:
            which = draw.randrange(3)
            slow[which][1].commit()
            expected |= pending[which]
            pending[which] = {}
            slow[which] = (slow[which][0], slow[which][0].begin())
        if draw.random() < 0.3:
            crash = bool(seed % 2) and draw.random() < 0.4
            mine.poll(made.feed(at_once=draw.choice([1, 3, 1000]), overlap_minutes=90), crash)
    for (session, transaction), rows in zip(slow, pending, strict=True):
        transaction.commit()
        session.close()
        expected |= rows
    mine.drain(made.feed(at_once=2, overlap_minutes=90))
    assert {name: found[3] for name, found in mine.last.items()} == expected
    if not seed % 2:
        assert len(mine.given) == len(expected)


@pytest.mark.server("postgres")
def test_a_row_that_cannot_be_used_is_counted_once_and_says_nothing(ward: Callable[..., Ward]) -> None:
    made = ward()
    made.add("good", T)
    made.add("no time", T, t=None)
    made.add("kind", T, k=SECRET)
    made.add("amount", T, n="NaN")
    made.add(" ", T)
    made.add("never", None)
    feed = made.feed()
    events, mark = feed.poll(None)
    assert names(events) == ["good"] and sum(feed.set_aside.values()) == 5 and len(feed.set_aside) == 5
    assert SECRET not in str(feed.set_aside) and "p-good" not in repr(events)
    feed.poll(mark)
    # A row without a stamp is no row that was read: it is named again and again until it is mended.
    assert feed.set_aside == {"a row whose 'arrived' is no time": 1}


@pytest.mark.server("postgres")
@pytest.mark.parametrize("stamp", ["0001-01-01", "0044-03-15 BC", "12026-01-01", "-infinity", "infinity"])
def test_a_stamp_at_the_end_of_time_is_set_aside_and_the_rest_is_read(
    ward: Callable[..., Ward], counted: Counting, stamp: str
) -> None:
    made = ward()
    made.add("good", T)
    with made.engine.begin() as session:
        session.execute(text(f"INSERT INTO {made.name}_rows VALUES ('p', '{stamp}', 'visit', 1, 'x', '{stamp}')"))
    feed = made.feed()
    mine = counted().drain(feed)
    assert list(mine.last) == ["good"]
    made.add("next", T + MINUTE)
    assert list(mine.drain(feed).last) == ["good", "next"]


@pytest.mark.server("postgres")
def test_a_view_that_is_none_is_refused_in_two_lines(ward: Callable[..., Ward]) -> None:
    made = ward()
    with made.engine.begin() as session:
        session.execute(text(f"CREATE TABLE {made.name}_half (patient text, arrived text)"))
        columns = "patient text, at text, kind text, amount text, identifier text, arrived text"
        session.execute(text(f"CREATE TABLE {made.name}_texts ({columns})"))
        session.execute(text(f"GRANT SELECT ON {made.name}_half, {made.name}_texts TO reader"))
    for view, said in (("nowhere", "no such view"), (f"{made.name}_half", "'at'"), (f"{made.name}_texts", "no time")):
        with pytest.raises(UsageError, match=said):
            made.feed(view=view).poll(None)
    with pytest.raises(UsageError, match="not one of this feed"):
        made.feed().poll(b"wardround/folder/1\x00")
    made.postgres.source(made.folder, url="postgresql+psycopg://reader@127.0.0.1:1/postgres")
    with pytest.raises(Unavailable):
        made.feed().poll(None)


def test_sqlite_is_tailed_by_its_texts(tmp_path: Path, counted: Counting) -> None:
    store = sqlite3.connect(tmp_path / "emr.sqlite")
    store.execute("CREATE TABLE events (patient, at TIMESTAMP, kind, amount, identifier, arrived TIMESTAMP)")
    (tmp_path / "emr.yaml").write_text("url: sqlite:///emr.sqlite\n")
    source = SqlFeedSource(name="w", kind="sql", path="emr.yaml", view="events", time_zone="Europe/Berlin")
    feed = SqlFeed(source, tmp_path / "emr.yaml", KEY, lambda: T + timedelta(days=1), 2)
    mine = counted()
    for number, arrived in enumerate(["2026-03-01 12:00:00", "2026-03-01 12:00:00", "2026-03-01T11:30:00+00:00"]):
        store.execute("INSERT INTO events VALUES (?, '2026-03-01', 'visit', 1, ?, ?)", (7, number, arrived))
    store.commit()
    mine.drain(feed)
    store.execute("INSERT INTO events VALUES (7, '2026-03-01', 'visit', 1, 3, '2026-03-01 10:45:00')")
    store.commit()
    mine.drain(feed)
    assert names(mine.given) == ["2", "0", "1", "3"]
    assert mine.given[0].at == datetime(2026, 2, 28, 23, tzinfo=UTC)
    store.close()
