"""The doctor looks at feeds: reachable, readable, whole, recent, and read to an end. It keeps and tells nothing."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wardround.client.doctor import Examined, Finding, State, examined_from
from wardround.client.doctor.feeds import check_feeds
from wardround.client.store.folder import SiteFolder
from wardround.protocol.identity import Identity

NOW = datetime.now(UTC)
SECRET = "Fernsby-4711"
OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
ADT = (
    "MSH|^~\\&|E|N|W|N|{at}+0000||ADT^{trigger}|1|P|2.5.1\rEVN|{trigger}|{at}\r"
    "PID|1||" + SECRET + "||X\rPV1|1|I|||||||||||||||||" + SECRET + "{number}\r"
)

Write = Callable[..., Path]


def seen(folder: Path) -> list[Finding]:
    return list(check_feeds(examined_from(None, folder), NOW))


def states(folder: Path) -> list[State]:
    return [finding.state for finding in seen(folder)]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return SiteFolder.create(tmp_path / "north", "north", [Identity.generate("anna").public]).path


@pytest.fixture
def database(site: Path) -> Iterator[Any]:
    """A function: makes the view of a feed from rows (patient, age of the event, kind, amount, identifier)."""

    def make(rows: list[tuple[str, timedelta, str, float, str]], columns: str = "", stamp: str = "arrived") -> Path:
        (site / "site.yaml").write_text("feeds:\n  - {name: emr, kind: sql, path: emr.yaml, view: live}\n")
        (site / "emr.yaml").write_text("url: sqlite:///emr.sqlite\n")
        with sqlite3.connect(site / "emr.sqlite") as store:
            store.execute("CREATE TABLE rows (patient, at, kind, amount, identifier, arrived)")
            told = [(p, at(age), kind, amount, name, at(age)) for p, age, kind, amount, name in rows]
            store.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", told)
            shown = columns or f"patient, at, kind, amount, identifier, {stamp} AS arrived"
            store.execute(f"CREATE VIEW live AS SELECT {shown} FROM rows")
        return site

    def at(age: timedelta) -> str:
        return (NOW - age).isoformat(" ", "seconds")

    yield make


def rows(*ages: timedelta, kind: str = "visit") -> list[tuple[str, timedelta, str, float, str]]:
    return [(f"{SECRET}-{number}", age, kind, 1, f"e{number}") for number, age in enumerate(ages)]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("age", "words"),
    [(HOUR / 2, "of the last hour"), (5 * HOUR, "of the last day"), (50 * HOUR, "of the last three days")],
)
def test_a_feed_that_works_says_how_old_its_last_event_is(database: Any, age: timedelta, words: str) -> None:
    (finding,) = seen(database(rows(age, 60 * HOUR)))
    assert (finding.state, finding.check) == (OK, "feeds") and words in finding.sentence


def test_a_silent_feed_is_a_warning_and_so_is_one_that_never_spoke(database: Any) -> None:
    (finding,) = seen(database(rows(100 * HOUR)))
    assert finding.state is WARNING and "no event of the last three days" in finding.sentence


def test_an_empty_view_is_a_warning(database: Any) -> None:
    assert states(database([])) == [WARNING]


def test_a_kind_that_nobody_lists_is_a_warning_without_a_number_or_a_name(database: Any) -> None:
    found = seen(database(rows(HOUR) + rows(HOUR, kind=SECRET)))
    assert [finding.state for finding in found] == [WARNING]
    assert "a row of a kind that 'kinds' does not list" in found[0].sentence and found[0].cure
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("columns", "words"),
    [("patient, at, kind, amount, identifier", "no column 'arrived'"), ("patient, arrived", "no column")],
)
def test_a_view_without_a_column_has_failed(database: Any, columns: str, words: str) -> None:
    (finding,) = seen(database(rows(HOUR), columns))
    assert finding.state is FAILED and words in finding.sentence and finding.cure.startswith("Mend it: ")


def test_a_view_that_stamps_its_rows_anew_whenever_it_is_read_has_failed(database: Any) -> None:
    """``arrived`` is made by the query: every poll gives everything again, and no tick would ever be whole."""
    stamp = "strftime('%Y-%m-%d %H:%M:%f', arrived, ((abs(random()) % 1000) / 1000.0) || ' seconds')"
    (finding,) = seen(database(rows(*[HOUR] * 30), stamp=stamp))
    assert finding.state is FAILED and "the same events again" in finding.sentence


def test_what_is_not_there_or_does_not_answer_has_failed_with_a_cure(site: Path) -> None:
    (site / "site.yaml").write_text(
        "feeds:\n  - {name: emr, kind: sql, path: emr.yaml, view: live}\n"
        "  - {name: adt, kind: hl7v2, path: gone}\n"
        "  - {name: stays, kind: fhir, path: fhir.yaml}\n"
    )
    (site / "fhir.yaml").write_text("url: http://127.0.0.1:9/fhir\n")
    found = seen(site)
    assert [finding.state for finding in found] == [FAILED] * 3 and all(finding.cure for finding in found)
    assert [finding.sentence[:6] for finding in found] == ["Feed 1", "Feed 2", "Feed 3"]


def messages(site: Path, *triggers: str, age: timedelta = HOUR) -> Path:
    (site / "in").mkdir()
    (site / "site.yaml").write_text("feeds:\n  - {name: adt, kind: hl7v2, path: in, settle_seconds: 0}\n")
    for number, trigger in enumerate(triggers):
        text = ADT.format(trigger=trigger, number=number, at=f"{NOW - age:%Y%m%d%H%M%S}")
        (site / "in" / f"{number}.hl7").write_text(text, newline="")
    return site


def test_messages_that_every_engine_writes_besides_are_no_warning(site: Path) -> None:
    assert states(messages(site, "A01", "A02", "A40")) == [OK]


def test_a_folder_with_a_broken_message_is_a_warning(site: Path) -> None:
    messages(site, "A01")
    (site / "in" / "x.hl7").write_text("no message\r")
    assert states(site) == [WARNING]


def test_a_folder_of_former_days_is_a_warning(site: Path) -> None:
    assert states(messages(site, "A01", age=timedelta(days=4))) == [WARNING]


def test_a_folder_that_is_closed_to_this_user_has_failed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages(site, "A01")
    assert states(site) == [OK]
    listed = os.scandir

    def closed(path: Any = ".") -> Any:
        """As for a user who may not list it; root, whom tests may run as, may."""
        if Path(os.fsdecode(path)) == site / "in":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert states(site) == [FAILED]


def test_the_doctor_keeps_nothing_and_a_site_without_feeds_has_no_line(database: Any, site: Path) -> None:
    assert seen(site) == [] and list(check_feeds(Examined())) == []
    database(rows(HOUR))
    before = {file: file.read_bytes() for file in site.rglob("*") if file.is_file()}
    assert states(site) == [OK]
    assert {file: file.read_bytes() for file in site.rglob("*") if file.is_file()} == before
