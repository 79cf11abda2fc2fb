"""Feeds in site.yaml, and the command that says by numbers whether one works."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardround.client.feeds import open_feed
from wardround.client.feeds.fhir import FhirFeed
from wardround.client.feeds.hl7 import Hl7Feed
from wardround.client.feeds.sql import SqlFeed
from wardround.client.settings import read_settings
from wardround.client.store.folder import SiteFolder
from wardround.console.cli import app
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.identity import Identity

SECRET = "Fernsby-4711"
MESSAGE = (
    "MSH|^~\\&|E|N|W|N|20260301120500+0100||ADT^{0}|1|P|2.5.1\rEVN|{0}|2026030{2}120000\r"
    f"PID|1||{SECRET}||X\rPV1|1|{{1}}|||||||||||||||||{SECRET}{{2}}\r"
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = SiteFolder.create(tmp_path / "north", "north", [Identity.generate("anna").public]).path
    (folder / "in").mkdir()
    for number, (trigger, place) in enumerate(
        [("A01", "I"), ("A03", "I"), ("A04", "O"), ("A08", "X"), ("A02", "I")], 1
    ):
        (folder / "in" / f"{number}.hl7").write_text(MESSAGE.format(trigger, place, number), newline="")
    (folder / "site.yaml").write_text(
        "feeds:\n"
        "  - {name: adt, kind: hl7v2, path: in, settle_seconds: 0}\n"
        "  - {name: emr, kind: sql, path: emr.yaml, view: live.events}\n"
        "  - {name: stays, kind: fhir, path: fhir.yaml}\n"
    )
    return folder


def test_each_kind_of_the_settings_opens_its_feed(site: Path) -> None:
    settings = read_settings(site)
    opened = [open_feed(source, site, bytes(32)) for source in settings.feeds]
    assert [type(feed) for feed in opened] == [Hl7Feed, SqlFeed, FhirFeed]
    with pytest.raises(UsageError, match="no feed 'adr'") as error:
        settings.feed("adr")
    assert "adt" in error.value.hint


def test_a_watermark_of_another_feed_or_a_broken_one_is_refused(site: Path) -> None:
    (source, *_), key = read_settings(site).feeds, SiteFolder.open(site).feeds_key()
    _, mark = open_feed(source, site, key).poll(None)
    assert open_feed(source, site, key).poll(mark) == ([], mark)
    other = source.model_copy(update={"name": "other"})
    changed = bytes([*mark[:-1], mark[-1] ^ 1])
    for feed, given in ((other, mark), (source, changed), (source, mark[:-64]), (source, b"x")):
        with pytest.raises(UsageError, match="not one of this feed"):
            open_feed(feed, site, key).poll(given)


def test_the_check_prints_numbers_and_days_and_stores_nothing(site: Path) -> None:
    before = {file: file.read_bytes() for file in site.rglob("*") if file.is_file()}
    result = CliRunner().invoke(app, ["site", "feed", "check", str(site), "adt"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "3 events in the first poll, of 3 identifiers; nothing is kept of them.",
        "  admission: 1",
        "  discharge: 1",
        "  visit: 1",
        "The first is of 2026-03-01, the last of 2026-03-03 (UTC).",
        "Set aside: 1 times a message of another kind than A01, A03, A04, A06, A07, A08, A11, A13",
        "Set aside: 1 times an update of a visit whose class is not known",
    ]
    again = CliRunner().invoke(app, ["site", "feed", "check", str(site), "adt", "--json"])
    found = json.loads(again.output)
    assert found["kinds"] == {"admission": 1, "discharge": 1, "visit": 1} and found["last_day"] == "2026-03-03"
    assert SECRET not in result.output + again.output
    assert {file: file.read_bytes() for file in site.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{name: X Y, kind: sql, path: a, view: b}", "name"),
        ("{name: a, kind: Fernsby-4711, path: a}", "kind is not known"),
        ("{name: a, kind: sql, path: a}", "view"),
        ("{name: a, kind: sql, path: a, view: b, Fernsby-4711: 1}", "a key that is none"),
        ("{name: a, kind: sql, path: a, view: b, overlap_minutes: -1}", "overlap_minutes"),
        ("{name: a, kind: sql, path: a, view: b, time_zone: Fernsby-4711}", "time_zone"),
        ("{name: a, kind: hl7v2, path: a, time_zone: ../../etc/passwd}", "time_zone"),
        ("{name: a, kind: hl7v2, path: a, classes: {Fernsby-4711: stroll}}", "classes"),
        ("{name: a, kind: hl7v2, path: a}\n  - {name: a, kind: hl7v2, path: b}", "one name"),
    ],
)
def test_a_wrong_setting_is_two_lines_that_name_its_key(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "site.yaml").write_text(f"feeds:\n  - {line}\n")
    with pytest.raises(UsageError, match=said) as error:
        read_settings(tmp_path)
    assert SECRET not in error.value.lines() and len(error.value.lines().splitlines()) == 2


@pytest.mark.parametrize("name", ["stays", "emr"])
def test_a_source_that_is_not_there_is_two_lines(site: Path, name: str) -> None:
    source = read_settings(site).feed(name)
    with pytest.raises(WardroundError, match="no file"):
        open_feed(source, site, bytes(32)).poll(None)
