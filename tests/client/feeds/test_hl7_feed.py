"""A folder of HL7 v2 messages that is tailed: whole messages only, whatever the bytes and wherever they are cut."""

import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardround.client.feeds import cancelled, hl7_files
from wardround.client.feeds.cancelled import Cancelled
from wardround.client.feeds.hl7 import NOT_FOLLOWED, Hl7Feed
from wardround.client.feeds.settings import Hl7FeedSource
from wardround.protocol.errors import Unavailable, UsageError

KEY = bytes(range(32))
SECRET = "Fernsby-4711"
EXAMPLES = 3000 if os.environ.get("WARDROUND_SOAK") else 60
LATER = 10**9 * 3600
"""ns after which every file has rested."""

Counting = Callable[[], Any]


def adt(
    trigger: str, visit: str = "v1", *, patient: str = "p1", place: str = "I", admitted: str = "", left: str = "",
    happened: str = "20260301120000+0100", ends: str = "\r",
) -> str:  # fmt: skip
    pv1 = ["PV1", "1", place, *[""] * 16, visit, *[""] * 24, admitted, left]
    return ends.join(
        [
            f"MSH|^~\\&|EMR|NORTH|WR|NORTH|20260301120500+0100||ADT^{trigger}|1|P|2.5.1",
            f"EVN|{trigger}|{happened}",
            f"PID|1||{patient}^^^NORTH^MR||{SECRET}^X||19600311|F",
            "|".join(pv1),
        ]
    )


def feed(folder: Path, rested: bool = True, at_once: int = 1000, **changes: Any) -> Hl7Feed:
    source = Hl7FeedSource.model_validate({"name": "w", "kind": "hl7v2", "path": "x"} | changes)
    newest = max((file.stat().st_mtime_ns for file in folder.rglob("*")), default=0)
    return Hl7Feed(source, folder, KEY, lambda: newest + LATER * rested, at_once)


def told(folder: Path, *texts: str, **changes: Any) -> list[tuple[str, float, str]]:
    """Kind, amount and time of what messages give, each in a file."""
    for number, one in enumerate(texts):
        (folder / f"{number:03}.hl7").write_text(one, newline="")
        os.utime(folder / f"{number:03}.hl7", ns=(number, number))
    events, _ = feed(folder, **changes).poll(None)
    return [(event.kind, event.amount, event.at.strftime("%d %H:%M")) for event in events]


def test_each_message_gives_what_chapter_3_says(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        adt("A01", admitted="20260301100000+0100"),
        adt("A04", "v2", place="E", happened="20260301113000"),
        adt("A04", "v3", place="O"),
        adt("A06", "v2", place="I"),
        adt("A03", left="20260302080000+0000"),
        adt("A08", admitted="20260301103000+0100", left="20260302090000+0000"),
        adt("A13"),
        adt("A11"),
        adt("A03", "v3", place="O"),
        adt("A07", "v2", place="O"),
        adt("A01", "v4", place="P"),
    )
    assert found == [
        ("admission", 1.0, "01 09:00"),
        # Without a zone it has that of MSH-7.
        ("emergency", 1.0, "01 10:30"),
        ("visit", 1.0, "01 11:00"),
        ("admission", 1.0, "01 11:00"),
        ("discharge", 1.0, "02 08:00"),
        ("admission", 1.0, "01 09:30"),
        ("discharge", 1.0, "02 09:00"),
        ("discharge", 0.0, "01 11:00"),
        ("admission", 0.0, "01 11:00"),
        ("discharge", 1.0, "01 11:00"),
    ]


def test_a_correction_has_the_identifier_of_what_it_corrects(tmp_path: Path, counted: Counting) -> None:
    told(tmp_path, adt("A01"), adt("A03"), adt("A13"), adt("A08", admitted="20260301130000"), adt("A01", "v2"))
    mine = counted().drain(feed(tmp_path))
    # 13:00 in the message's zone.
    assert {(kind, amount, at) for _, at, kind, amount in mine.last.values()} == {
        ("admission", 1.0, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("discharge", 0.0, datetime(2026, 3, 1, 11, tzinfo=UTC)),
        ("admission", 1.0, datetime(2026, 3, 1, 11, tzinfo=UTC)),
    }
    assert len(mine.last) == 3


def test_the_sites_zone_holds_where_no_message_names_one_and_its_classes_go_first(tmp_path: Path) -> None:
    text = adt("A04", happened="20260701120000", place="NF").replace("20260301120500+0100", "20260701120500")
    found = told(tmp_path, text, time_zone="Europe/Berlin", classes={"NF": "emergency"})
    assert found == [("emergency", 1.0, "01 10:00")]


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: text.encode(),
        lambda text: text.replace("\r", "\n").encode(),
        lambda text: text.replace("\r", "\r\n").encode() + b"\r\n",
        lambda text: b"\x0b" + text.encode() + b"\r\x1c\r",
        lambda text: b"FHS|^~\\&|X\rBHS|^~\\&|X\r" + text.encode() + b"\rBTS|1\rFTS|1\r",
        lambda text: "\ufeff".encode() + text.encode(),
        lambda text: text.replace("^~\\&", "$~\\&").replace("^", "$").replace("|", "%").encode(),
    ],
    ids=["CR", "LF", "CRLF", "MLLP", "batch", "BOM", "other separators"],
)
def test_segments_frames_batches_and_separators_make_no_difference(
    tmp_path: Path, dress: Callable[[str], bytes]
) -> None:
    (tmp_path / "a.hl7").write_bytes(dress(adt("A01")))
    ((event,), _) = feed(tmp_path).poll(None)
    assert (event.kind, event.patient, event.identifier) == ("admission", "p1", "admission|p1|v1")


def test_escape_sequences_of_an_identifier_are_undone(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(adt("A01", r"7\F\8\S\9", patient=r"p\X41\1"))
    ((event,), _) = feed(tmp_path).poll(None)
    assert (event.patient, event.identifier) == ("pA1", "admission|pA1|7|8^9")


def test_a_half_written_message_waits_until_it_is_whole(tmp_path: Path, counted: Counting) -> None:
    mine, file = counted(), tmp_path / "growing.hl7"
    whole = adt("A01") + "\r" + adt("A03") + "\r"
    cut = whole.index("A03") + 30
    file.write_text(whole[:cut], newline="")
    mine.drain(feed(tmp_path, rested=False))
    # The next header ends the first message; the second has begun.
    assert [event.kind for event in mine.given] == ["admission"]
    file.write_text(whole, newline="")
    assert mine.poll(feed(tmp_path, rested=False)) == 0
    mine.drain(feed(tmp_path))
    assert [event.kind for event in mine.given] == ["admission", "discharge"]


def test_a_writer_that_stopped_for_long_and_went_on_has_its_message_read_whole(
    tmp_path: Path, counted: Counting
) -> None:
    mine, file, text = counted(), tmp_path / "growing.hl7", adt("A01", "v77")
    file.write_text(text[: text.index("v77") + 2], newline="")
    mine.drain(feed(tmp_path))
    file.write_text(text + "\r" + adt("A03", "v77"), newline="")
    mine.drain(feed(tmp_path))
    assert [event.identifier for event in mine.given] == ["admission|p1|v7", "admission|p1|v77", "discharge|p1|v77"]


def test_mllp_says_where_a_message_ends_and_it_need_not_rest(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text("\x0b" + adt("A01") + "\r\x1c\r", newline="")
    assert len(feed(tmp_path, rested=False).poll(None)[0]) == 1


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, counted: Counting) -> None:
    mine, file = counted(), tmp_path / "latest.hl7"
    for number, text in enumerate(
        [adt("A01", "v1"), adt("A01", "v2"), adt("A01", "v3") + "\r" + adt("A01", "v4"), adt("A01", "v5")], 1
    ):
        file.write_text(text, newline="")
        os.utime(file, ns=(number, number))
        mine.drain(feed(tmp_path))
    assert [event.identifier[-2:] for event in mine.given] == ["v1", "v2", "v3", "v4", "v5"]


def test_a_drive_that_was_away_gives_nothing_twice(tmp_path: Path, counted: Counting) -> None:
    mine, drive = counted(), tmp_path / "drive"
    drive.mkdir()
    told(drive, adt("A01"), adt("A03"))
    mine.drain(feed(drive))
    shutil.move(drive, tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        mine.poll(feed(tmp_path / "drive"))
    drive.mkdir()
    assert mine.poll(feed(drive)) == 0
    drive.rmdir()
    shutil.move(tmp_path / "elsewhere", drive)
    assert mine.poll(feed(drive)) == 0 and len(mine.given) == 2


def test_files_are_left_as_they_are_and_hidden_or_unfinished_names_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for name in ("day/a.hl7", ".b.hl7", "c.hl7.part", ".d/e.hl7"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(adt("A01", name), newline="")
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*") if file.is_file()}
    events, _ = feed(tmp_path).poll(None)
    assert [event.identifier for event in events] == ["admission|p1|day/a.hl7"]
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*") if file.is_file()}
    assert after == before


def test_a_broken_message_is_counted_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = adt("A01")
    broken = [
        good.replace("PID|1||p1", "PID|1||"),
        good.replace("PV1", "PVX"),
        adt("A01", admitted=f"noon {SECRET}"),
        adt("A01", admitted="202603"),
        adt("A11", "", happened=""),
        adt("A08", place="U"),
        good.replace("ADT^A01", "ORU^R01"),
        f"MSH|{SECRET}",
        SECRET,
    ]
    for number, text in enumerate([*broken, good]):
        (tmp_path / f"{number}.hl7").write_text(text, newline="")
    asked = feed(tmp_path)
    events, mark = asked.poll(None)
    assert len(events) == 1 and sum(asked.set_aside.values()) == len(broken)
    assert SECRET not in f"{asked.set_aside}{events}{caplog.text}" and SECRET.encode() not in mark
    assert "p1" not in repr(events)
    asked.poll(mark)
    assert not asked.set_aside


def test_a_file_that_cannot_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counting
) -> None:
    told(tmp_path, adt("A01"), adt("A03"))
    mine, opened = counted(), Path.open

    def refused(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.name == "000.hl7":
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        asked = feed(tmp_path)
        mine.poll(asked)
        assert asked.set_aside == {"a file that cannot be read": 1}
    mine.drain(feed(tmp_path))
    assert [event.kind for event in mine.given] == ["discharge", "admission"]


def test_a_folder_of_too_many_files_and_a_strange_watermark_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, adt("A01"), adt("A03"))
    with pytest.raises(UsageError, match="not one of this feed"):
        feed(tmp_path).poll(b"wardround/window/1\x00")
    monkeypatch.setattr(hl7_files, "MOST_FILES", 1)
    with pytest.raises(UsageError, match="more than 1 files"):
        feed(tmp_path).poll(None)


def test_a_message_longer_than_a_piece_is_counted_and_what_follows_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counting
) -> None:
    monkeypatch.setattr(hl7_files, "_PIECE", 2000)
    long = adt("A01", "long") + "\rNTE|1||" + "x" * 5000
    (tmp_path / "a.hl7").write_text("\r".join([adt("A01"), long, adt("A03")]), newline="")
    mine = counted().drain(feed(tmp_path))
    assert [event.kind for event in mine.given] == ["admission", "discharge"]


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
TRIGGERS = st.sampled_from(["A01", "A03", "A04", "A08", "A11", "A13"])
VISITS = st.sampled_from(["v1", "v2", "v3"])
TEXTS = st.lists(st.tuples(TRIGGERS, VISITS, st.integers(10, 20)), min_size=1, max_size=8)
BETWEEN = st.sampled_from(["\r", "\n", "\r\n", "\r\x1c\r\x0b", "\rBTS|1\rBHS|^~\\&|X\r"])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
@given(TEXTS, BETWEEN, st.lists(st.tuples(st.integers(0, 3000), st.booleans(), st.booleans()), max_size=6), st.data())
def test_wherever_a_file_is_cut_and_a_site_crashes_the_events_are_those_of_one_poll(
    counted: Counting, texts: Any, between: str, cuts: Any, data: st.DataObject
) -> None:
    whole = between.join(
        adt(trigger, visit, admitted=f"2026030{1}{hour}0000", left=f"202603021{hour % 10}0000")
        for trigger, visit, hour in texts
    ).encode()
    piece = data.draw(st.sampled_from([1200, 5000, 1 << 20]))
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hl7_files, "_PIECE", piece)
        folder, mine, rested_ever = Path(name), counted(), False
        file = folder / "a.hl7"
        for cut, rested, crash in sorted(cuts):
            file.write_bytes(whole[:cut])
            rested_ever |= rested or crash
            mine.poll(feed(folder, rested, at_once=2), crash)
        file.write_bytes(whole)
        mine.drain(feed(folder, at_once=2))
        once = counted().drain(feed(folder))
    expected = [(event.identifier, event.at, event.amount) for event in once.given]
    found = [(event.identifier, event.at, event.amount) for event in mine.given]
    if not rested_ever:
        assert found == expected
    # A message that was cut and had rested may be given in half, and then again whole.
    assert {key: value for key, value in mine.last.items() if key in once.last} == once.last


@settings(max_examples=EXAMPLES * 3, deadline=None, suppress_health_check=CHECKS)
@given(st.data())
def test_no_bytes_end_in_a_traceback_or_a_log(caplog: pytest.LogCaptureFixture, data: st.DataObject) -> None:
    caplog.clear()
    raw = bytearray((adt("A01") + "\r" + adt("A08", admitted="20260301100000")).encode())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=12)):
        raw[place] = byte
    written = data.draw(st.one_of(st.just(bytes(raw)), st.binary(max_size=300)))
    with TemporaryDirectory() as name:
        (Path(name) / "a.hl7").write_bytes(written)
        _, mark = feed(Path(name)).poll(None)
        assert feed(Path(name)).poll(mark)[0] == []
    assert caplog.text == ""


def test_real_messages_of_every_kind_are_read_or_counted(wardround_data: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wardround_data / "emr_formats" / "hl7v2_samples.zip", tmp_path)
    asked = feed(tmp_path)
    events, _ = asked.poll(None)
    # By splitting strings: the trigger of each message.
    heads = [file.read_bytes().split(b"\r")[0].split(b"\n")[0].split(b"|") for file in tmp_path.rglob("*.hl7")]
    kinds = [head[8].split(b"^")[:2] for head in heads]
    read = {b"A01", b"A03", b"A04", b"A06", b"A07", b"A08", b"A11", b"A13"}
    ours = sum(len(kind) > 1 and kind[0] == b"ADT" and kind[1] in read for kind in kinds)
    assert len(kinds) == 139 and sum(asked.set_aside.values()) == 139 - ours
    assert {event.kind for event in events} == {"admission", "discharge", "visit", "emergency"}


def given_in_turn(folder: Path, counted: Counting, *texts: str) -> tuple[list[tuple[str, float]], Any]:
    """(kind and amount of what each poll gave, the caller): one message a poll, with a restart in between."""
    mine, found = counted(), []
    for number, one in enumerate(texts):
        (folder / f"{number:03}.hl7").write_text(one, newline="")
        os.utime(folder / f"{number:03}.hl7", ns=(number, number))
        before = len(mine.given)
        mine.drain(feed(folder))
        found += [(event.kind, event.amount) for event in mine.given[before:]]
    return found, mine


def test_an_update_does_not_revive_a_visit_that_was_cancelled(tmp_path: Path, counted: Counting) -> None:
    at = "20260301100000+0100"
    found, mine = given_in_turn(
        tmp_path,
        counted,
        adt("A01", admitted=at),
        adt("A11", admitted=at),
        adt("A08", admitted=at),
        adt("A08", admitted=at, left="20260302090000+0100"),
        adt("A03", admitted=at, left="20260302090000+0100"),
        adt("A01", "v2", admitted=at),
        adt("A08", "v2", admitted=at),
    )
    assert found == [("admission", 1.0), ("admission", 0.0), ("admission", 1.0), ("admission", 1.0)]
    assert sorted(amount for _, _, _, amount in mine.last.values()) == [0.0, 1.0], "v1 stays cancelled, v2 is there"


def test_a_new_admission_of_a_cancelled_visit_counts_and_may_be_updated(tmp_path: Path, counted: Counting) -> None:
    at, left = "20260301100000+0100", "20260302090000+0100"
    found, _ = given_in_turn(
        tmp_path,
        counted,
        adt("A01", admitted=at),
        adt("A11", admitted=at),
        adt("A01", admitted=at),
        adt("A08", admitted=at),
        adt("A03", admitted=at, left=left),
        adt("A13", admitted=at, left=left),
        adt("A08", admitted=at, left=left),
        adt("A03", admitted=at, left=left),
        adt("A08", admitted=at, left=left),
    )
    assert found == [
        ("admission", 1.0), ("admission", 0.0), ("admission", 1.0), ("admission", 1.0),
        ("discharge", 1.0), ("discharge", 0.0),
        ("admission", 1.0),  # of the update that names the cancelled discharge: only the arrival
        ("discharge", 1.0),
        ("admission", 1.0), ("discharge", 1.0),
    ]  # fmt: skip


def test_what_was_cancelled_is_in_the_watermark_and_under_a_key(tmp_path: Path, counted: Counting) -> None:
    at = "20260301100000+0100"
    _, mine = given_in_turn(tmp_path, counted, adt("A01", admitted=at), adt("A11", admitted=at))
    assert SECRET.encode() not in mine.watermark and b"p1" not in mine.watermark and b"v1" not in mine.watermark
    (tmp_path / "next.hl7").write_text(adt("A08", admitted=at), newline="")
    other = feed(tmp_path)
    assert other.poll(mine.watermark)[0] == []
    assert other.set_aside == {"an update or a discharge of a visit that was cancelled": 1}
    assert other.poll(mine.watermark)[0] == [], "after a crash the same again"


def test_of_too_many_cancellations_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelled, "MOST", 3)
    held = Cancelled(KEY)
    for name in ("a", "b", "c", "a", "d"):
        held.add(name)
    kept, rest = Cancelled.parse(held.packed() + b"x" * 64, KEY, 64)
    assert [name in kept for name in "abcd"] == [True, False, True, True] and rest == b"x" * 64
    kept.drop("a")
    assert "a" not in kept and "c" in kept and "c" not in Cancelled(bytes(32), ())


@pytest.mark.parametrize("body", [b"\x00", b"\x00\x00\x00\x02" + bytes(16), bytes(4) + b"x" * 63, b"x" * 64])
def test_a_body_of_another_version_is_refused_in_two_lines(body: bytes) -> None:
    with pytest.raises(UsageError, match="another version") as error:
        Cancelled.parse(body, KEY, 64)
    assert len(error.value.lines().splitlines()) == 2


@pytest.mark.parametrize("trigger", ["A18", "A34", "A40", "A47", "A50"])
def test_merges_are_set_aside_and_counted_and_move_nothing(tmp_path: Path, counted: Counting, trigger: str) -> None:
    """A number keeps its own contributions: a merge gives and takes back no event of either."""
    merge = adt(trigger, patient="p2") + "\rMRG|p1^^^NORTH^MR"
    mine, reading = counted(), None
    for number, one in enumerate(
        (adt("A01", patient="p1"), merge, adt("A08", patient="p2", admitted="20260301100000"))
    ):
        (tmp_path / f"{number}.hl7").write_text(one, newline="")
        reading = feed(tmp_path)
        mine.poll(reading)
        if number == 1:
            assert reading.set_aside == {NOT_FOLLOWED: 1}
    assert [(event.patient, event.amount) for event in mine.given] == [("p1", 1.0), ("p2", 1.0)]
    assert len({event.identifier for event in mine.given}) == 2, "an identifier belongs to one patient's number"
