"""HL7 v2 messages: what is read equals what splitting strings says, and what is broken is counted and named."""

import logging
import os
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.connectors import read_batches
from wardround.client.connectors.events import LeftOut
from wardround.client.connectors.hl7v2 import read_hl7v2
from wardround.client.connectors.hl7v2_messages import Message, messages, quantity, stamp
from wardround.client.connectors.timeline import Tally
from wardround.protocol.errors import UsageError

Rows = list[dict[str, Any]]
AsRows = Callable[[Iterator[pa.RecordBatch]], Rows]
HB = {"columns": {"x": {"from": "measurement", "codes": ["loinc:718-7"], "unit": "g/dL"}}}
COUNT = {"columns": {"x": {"from": "measurement", "codes": ["loinc:718-7"], "take": "count"}}}
TEXT = {"columns": {"x": {"from": "measurement", "codes": ["loinc:718-7"]}}}
EXECUTIONS = 20_000 if os.environ.get("WARDROUND_SOAK") else 150


def message(kind: str, *segments: str, sent: str = "20240105100000+0100", charset: str = "") -> str:
    head = f"MSH|^~\\&|LAB|NORTH|EHR|NORTH|{sent}||{kind}|1|P|2.5.1||||||{charset}"
    return "\r".join([head, *segments]) + "\r"


def result(
    value: str, *, status: str = "F", kind: str = "NM", unit: str = "g/dL", order: str = "42",
    at: str = "20240102080000", code: str = "718-7^Hb^LN", sent: str = "20240105100000+0100",
    who: str = "p1", sub: str = "",
) -> str:  # fmt: skip
    return message(
        "ORU^R01",
        f"PID|1||{who}^^^NORTH^MR||X^Y||19600311|F",
        f"OBR|1||{order}|57021-8^CBC^LN|||{at}",
        f"OBX|1|{kind}|{code}|{sub}|{value}|{unit}|||||{status}|||{at}",
        sent=sent,
    )


@pytest.fixture
def read(tmp_path: Path, as_rows: AsRows) -> Callable[..., Rows]:
    """Rows of messages that are written into files of a fresh folder."""
    made = iter(range(1000))

    def reading(*files: str | bytes, cohort: dict[str, Any] = HB, **options: Any) -> Rows:
        folder = tmp_path / f"n{next(made)}"
        folder.mkdir()
        for number, text in enumerate(files):
            (folder / f"{number:03}.hl7").write_bytes(text if isinstance(text, bytes) else text.encode())
        return as_rows(read_hl7v2(folder, cohort=cohort, **options))

    return reading


@pytest.fixture
def samples(wardround_data: Path) -> Path:
    return wardround_data / "emr_formats" / "hl7v2_samples.zip"


@pytest.fixture
def plain(samples: Path) -> list[list[list[str]]]:
    """Every message as segments of fields, by splitting strings."""
    with zipfile.ZipFile(samples) as archive:
        texts = [archive.read(name).decode("utf-8-sig") for name in archive.namelist() if name.endswith(".hl7")]
    return [
        [line.split("|") for line in text.replace("\r\n", "\r").replace("\n", "\r").split("\r") if line.strip()]
        for text in texts
    ]


def field(segment: list[str], number: int) -> str:
    return segment[number] if number < len(segment) else ""


def test_every_one_of_the_139_samples_is_taken_apart_as_splitting_strings_does(
    samples: Path, plain: list[list[list[str]]]
) -> None:
    found: list[Message] = []
    with zipfile.ZipFile(samples) as archive:
        for name in (name for name in archive.namelist() if name.endswith(".hl7")):
            with archive.open(name) as stream:
                found += [Message(segments, "utf-8") for segments in messages(stream, name, Tally())]
    assert len(found) == len(plain) == 139
    compared = 0
    for whole, segments in zip(found, plain, strict=True):
        for kind in ("PID", "PV1", "OBX", "DG1"):
            mine = [segment for segment in whole.segments if whole.get(segment, 0) == kind]
            theirs = [segment for segment in segments if segment[0] == kind]
            assert len(mine) == len(theirs)
            for ours, split in zip(mine, theirs, strict=True):
                for number in range(1, 20):
                    first = field(split, number).split("~")[0].split("^")[0].split("&")[0].strip()
                    if "\\" not in first:
                        assert whole.get(ours, number) == first
                        compared += 1
    assert compared > 5_000


def test_patients_and_counts_of_the_samples_are_those_of_splitting_strings(
    samples: Path, plain: list[list[list[str]]], as_rows: AsRows
) -> None:
    codes = {"heart": "8867-4", "platelets": "11125-2", "lymphocytes": "26478-8", "hematocrit": "20570-8"}
    columns: dict[str, Any] = {"sex": {"from": "sex"}}
    for name, code in codes.items():
        columns[name] = {"from": "measurement", "codes": [f"loinc:{code}"], "take": "count"}
    columns["last platelets"] = {"from": "measurement", "codes": ["loinc:11125-2"]}
    cohort = {"columns": columns}
    tally = Tally()
    rows = {row["patient"]: row for row in as_rows(read_hl7v2(samples, cohort=cohort, tally=tally))}
    sex: dict[str, set[str]] = {}
    results: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    other = not_final = 0
    for segments in plain:
        kind = field(segments[0], 8).split("^")[0]
        if kind not in ("ADT", "ORU", "OUL"):
            other += 1
            continue
        who, order = "", ""
        for segment in segments:
            if segment[0] == "PID":
                listed = [part.split("^") for part in field(segment, 3).split("~")]
                records = [part[0] for part in listed if field(part, 4) == "MR"]
                who = (records or [part[0] for part in listed if part[0]] or [field(segment, 2)])[0].strip()
                sex.setdefault(who, set()).add(field(segment, 8))
                order = ""
            if segment[0] == "OBR":
                order = field(segment, 3).split("^")[0]
            if segment[0] == "OBX" and kind != "ADT":
                if field(segment, 11) not in ("", "F", "C"):
                    not_final += 1
                    continue
                code, _, system = [*field(segment, 3).split("^"), "", ""][:3]
                for number, _ in enumerate(field(segment, 5).split("~")):
                    if system == "LN":
                        told = (order, field(segment, 4), field(segment, 14), str(number))
                        results.setdefault((who, code), set()).add(told)
    assert (other, not_final) == (69, 26)
    assert tally.counts["a message that is neither ADT nor ORU nor OUL"] == other
    assert tally.counts["a result that is not final"] == not_final
    merged = {"56789", "MR102"}
    assert set(rows) == {who for who in sex if who} - merged
    words = {"M": "male", "F": "female"}
    for who, row in rows.items():
        assert row["sex"] in {words.get(letter) for letter in sex[who]}
        for name, code in codes.items():
            timed = [told for told in results.get((who, code), ()) if told[2]]
            untimed = [told for told in results.get((who, code), ()) if not told[2]]
            assert len(timed) <= row[name] <= len(timed) + len(untimed)
    # LAB-ORU-1 and LAB-ORU-2 report one result of one order: 221, and in the later message 220.
    assert rows["10006579"]["platelets"] == 1
    assert rows["10006579"]["last platelets"] == "220"
    assert sum(row["heart"] for row in rows.values()) > 0


def test_a_heart_table_that_is_written_as_messages_is_read_back(
    heart: tuple[Rows, dict[str, Any]], read: Callable[..., Rows]
) -> None:
    table, cohort = heart
    when = "20240301090000+0000"
    files = []
    for row in table:
        sex = {"male": "M", "female": "F", None: "U"}[row["sex"]]
        pid = f"PID|1||{row['patient']}^^^NORTH^MR||X^Y||{2024 - row['age']}0115|{sex}"
        visit = f"PV1|1|O|||||||||||||||||v{row['patient']}|||||||||||||||||||||||||{when}"
        illness = [f"DG1|1||I25.1^^I10||{'20240320'}"] if row["sick"] else []
        files.append(message("ADT^A04^ADT_A01", pid, visit, *illness))
        obx = []
        for number, (column, code, unit) in enumerate(
            [("trestbps", "8480-6^SBP^LN", "mm[Hg]"), ("chol", "2093-3^Chol^LN", "mg/dL")], 1
        ):
            if row[column] is not None:
                obx.append(f"OBX|{number}|NM|{code}||{row[column]}|{unit}|||||F|||{when}")
        if row["fbs"]:
            obx.append(f"OBX|9|CWE|FBS^Sugar^L||{row['fbs'].removeprefix('snomed:')}^^SCT||||||F|||{when}")
        if obx:
            files.append(message("ORU^R01", pid, f"OBR|1||o{row['patient']}|X^X^L|||{when}", *obx))
    assert read(*files, cohort=cohort) == table
    # One file with MLLP's framing bytes, in another order, is the same.
    framed = "".join(f"\x0b{text}\x1c\r" for text in reversed(files))
    assert read(framed, cohort=cohort) == table


def test_the_fixture_reads_as_its_readme_says(fixtures: Path, as_rows: AsRows) -> None:
    text = (fixtures / "hl7v2" / "README.md").read_text()
    (source,) = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["data"]
    batches = read_batches(source["connector"], fixtures / "hl7v2" / source["path"], source["options"])
    assert as_rows(batches) == [
        {"patient": "4711", "age": 63, "hemoglobin": 12.9, "potassium": 4.1, "visits": 1},
        {"patient": "4712", "age": None, "hemoglobin": None, "potassium": None, "visits": 0},
    ]


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("frame", ["{}", "\x0b{}\x1c\r", "\ufeff{}", "FHS|^~\\&\rBHS|^~\\&\r{}BTS|1\rFTS|1\r"])
def test_line_ends_and_envelopes_make_no_difference(ends: str, frame: str, read: Callable[..., Rows]) -> None:
    both = frame.format(result("13.0") + result("14.0", at="20240103080000"))
    assert read(both.replace("\r", ends)) == [{"patient": "p1", "x": 14.0}]


def test_a_corrected_result_replaces_the_earlier_one_in_whatever_order_they_are_read(read: Callable[..., Rows]) -> None:
    first, corrected = result("31.0"), result("13.0", status="C", sent="20240106100000+0100")
    for files in ([first, corrected], [corrected, first]):
        assert read(*files)[0]["x"] == 13.0
        assert read(*files, cohort=COUNT)[0]["x"] == 1


@pytest.mark.parametrize("status", ["D", "W", "X"])
def test_a_withdrawn_result_is_gone(status: str, read: Callable[..., Rows]) -> None:
    first, gone = result("31.0"), result("", status=status, sent="20240106100000+0100")
    other = result("12.0", order="43")
    for files in ([first, gone, other], [other, gone, first]):
        assert read(*files)[0]["x"] == 12.0
        assert read(*files, cohort=COUNT)[0]["x"] == 1


def test_of_messages_of_one_moment_the_withdrawal_counts_and_then_the_correction(read: Callable[..., Rows]) -> None:
    first, corrected, gone = result("31.0"), result("13.0", status="C"), result("", status="W")
    for files in ([first, corrected], [corrected, first]):
        assert read(*files)[0]["x"] == 13.0
    for files in ([first, corrected, gone], [gone, corrected, first]):
        assert read(*files, cohort=COUNT)[0]["x"] == 0


def test_a_result_that_comes_back_after_it_was_withdrawn_counts(read: Callable[..., Rows]) -> None:
    history = [result("31.0"), result("", status="W", sent="20240106"), result("12.0", status="C", sent="20240107")]
    assert read(*history)[0]["x"] == 12.0


@pytest.mark.parametrize("status", ["P", "I", "S", "R", "O", "N"])
def test_a_result_that_is_not_final_is_counted_and_not_used(status: str, read: Callable[..., Rows]) -> None:
    tally = Tally()
    assert read(result("31.0", status=status), tally=tally)[0]["x"] is None
    assert tally.counts == {"a result that is not final": 1}
    assert tally.places == ["000.hl7 message 1: a result that is not final"]


def test_the_same_message_twice_counts_once_and_another_sub_id_or_time_counts_too(read: Callable[..., Rows]) -> None:
    one = result("13.0")
    assert read(one, one, cohort=COUNT)[0]["x"] == 1
    assert read(one, result("13.0", sub="2"), result("13.0", at="20240102090000"), cohort=COUNT)[0]["x"] == 3


@pytest.mark.parametrize(
    ("kind", "value", "number", "reason"),
    [
        ("NM", "13.5", 13.5, ""),
        ("NM", "+.5", 0.5, ""),
        ("ST", " 13.5 ", 13.5, ""),
        ("NM", "&lt;5", None, "not a number"),
        ("NM", "<5", None, "a bound, not a number"),
        ("ST", ">= 200", None, "a bound, not a number"),
        ("ST", "\u22645", None, "a bound, not a number"),
        ("SN", "^13.5", 13.5, ""),
        ("SN", "=^13.5", 13.5, ""),
        ("SN", "<^5", None, "a bound, not a number"),
        ("SN", "^1^:^128", None, "not a number"),
        ("NM", "13,5", None, "not a number"),
        ("NM", "1e3", None, "not a number"),
        ("NM", "nan", None, "not a number"),
        ("ST", "haemolytic", None, "not a number"),
        ("NM", "", None, "no value"),
        ("NM", '""', None, "no value"),
        ("ED", "^^PDF^Base64^AAAA", None, "no value"),
        ("CWE", "1^One^L", None, "not a number"),
    ],
)
def test_a_value_is_a_number_or_counted_under_its_reason(
    kind: str, value: str, number: float | None, reason: str, read: Callable[..., Rows]
) -> None:
    tally = Tally()
    value = value.replace("&lt;5", "\\T\\lt;5")
    assert read(result(value, kind=kind), tally=tally)[0]["x"] == number
    assert tally.counts == ({f"column 'x': {reason}": 1} if reason else {})


def test_a_bound_is_its_limit_where_the_site_says_so(read: Callable[..., Rows]) -> None:
    assert read(result("<5"), bounds="limit")[0]["x"] == 5.0
    assert read(result("<^5", kind="SN"), bounds="limit")[0]["x"] == 5.0


def test_an_unknown_unit_is_counted_and_a_known_one_is_converted(read: Callable[..., Rows]) -> None:
    tally = Tally()
    units = ["g/l-1", "", "giga.l-1"]
    files = [result("13.4", unit=unit, order=str(n)) for n, unit in enumerate(units)]
    assert read(*files, tally=tally)[0]["x"] is None
    assert tally.counts == {"column 'x': a unit that cannot be converted": 2, "column 'x': no unit": 1}
    assert read(result("134", unit="g/L"))[0]["x"] == pytest.approx(13.4)
    assert read(result("134", unit="gl^gram per litre^L^g/L^^UCUM"))[0]["x"] == pytest.approx(13.4)


def test_repetitions_are_results_of_their_own(read: Callable[..., Rows]) -> None:
    both = {"columns": {name: {**COUNT["columns"]["x"], "take": name} for name in ("min", "max", "count")}}
    assert read(result("60~120", unit="/min"), cohort=both) == [{"patient": "p1", "min": 60, "max": 120, "count": 2}]


def test_codes_come_from_either_coding_and_local_ones_are_local(read: Callable[..., Rows]) -> None:
    both = result("13.0", code="HB^Hb^99LAB^718-7^Hemoglobin^LN")
    assert read(both)[0]["x"] == 13.0
    local = {"columns": {"x": {"from": "measurement", "codes": ["local:HB"], "unit": "g/dL"}}}
    assert read(both, cohort=local)[0]["x"] is None
    assert read(both, cohort=local, systems={"99LAB": "local"})[0]["x"] == 13.0
    assert read(result("13.0", code="HB^Hb^L"), cohort=local)[0]["x"] == 13.0
    assert read(result("13.0", code="HB"), cohort=local)[0]["x"] == 13.0


def test_escape_sequences_are_undone_and_never_logged(
    read: Callable[..., Rows], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    written = {
        "a \\T\\ b \\S\\ c \\F\\ d \\R\\ e \\E\\ f": "a & b ^ c | d ~ e \\ f",
        "line\\.br\\line": "line\nline",
        "\\H\\bold\\N\\": "bold",
        "\\XC3A4\\rger": "\u00e4rger",
        "\\Xzz\\odd\\Z123\\": "odd",
        "half \\ only": "half \\ only",
    }
    for text, meant in written.items():
        assert read(result(text, kind="ST"), cohort=TEXT)[0]["x"] == meant
    assert not caplog.records


def test_messages_in_other_character_sets_are_read_by_what_they_name(read: Callable[..., Rows]) -> None:
    def said(charset: str) -> str:
        pid, obr = "PID|1||p1^^^N^MR", "OBR|1||1|A^A^L|||20240102"
        text = "OBX|1|ST|718-7^Hb^LN||M\u00fcller||||||F"
        return message("ORU^R01", pid, obr, text, charset=charset)

    for charset, codec in [("8859/1", "latin-1"), ("8859/15", "iso8859-15"), ("UNICODE UTF-8", "utf-8"), ("", "utf-8")]:
        assert read(said(charset).encode(codec), cohort=TEXT)[0]["x"] == "M\u00fcller"
    assert read(said("").encode("cp1252"), cohort=TEXT, encoding="cp1252")[0]["x"] == "M\u00fcller"
    assert read(said("").encode("utf-16"), cohort=TEXT)[0]["x"] == "M\u00fcller"
    tally = Tally()
    files = [said("").encode("latin-1"), said("KLINGON").encode(), result("13.0")]
    assert read(*files, cohort=COUNT, tally=tally)[0]["x"] == 1
    assert tally.counts == {"text that is not in its character set": 1, "a character set that is not known": 1}


def test_merged_patients_are_one_wherever_the_merge_stands(read: Callable[..., Rows]) -> None:
    def merge(old: str, new: str, sent: str) -> str:
        return message("ADT^A40^ADT_A39", f"PID|1||{new}^^^NORTH^MR", f"MRG|{old}^^^NORTH^MR", sent=sent)

    files = [
        result("11.0", who="a", order="1"),
        result("12.0", who="b", order="2"),
        result("13.0", who="c", order="3"),
        merge("a", "b", "20240201"),
        merge("b", "c", "20240202"),
    ]
    for order in (files, files[::-1]):
        assert read(*order, cohort=COUNT) == [{"patient": "c", "x": 3}]
    # A merge that is turned round later ends with the last word and not in a circle.
    assert read(*files[:2], merge("a", "b", "20240201"), merge("b", "a", "20240203"), cohort=COUNT) == [
        {"patient": "a", "x": 2}
    ]


def test_a_cancelled_admission_is_no_visit(read: Callable[..., Rows]) -> None:
    def adt(trigger: str, visit: str, sent: str) -> str:
        pv1 = f"PV1|1|I|W^1^1^NORTH|||||||||||||||{visit}" + "|" * 25 + "20240101080000"
        return message(f"ADT^{trigger}", "EVN||20240101", "PID|1||p1^^^N^MR||||19600311|M", pv1, sent=sent)

    cohort = {
        "columns": {
            "n": {"from": "encounter", "take": "count"},
            "code": {"from": "encounter"},
            "place": {"from": "site_of_care"},
            "age": {"from": "age"},
        }
    }
    files = [adt("A01", "v1", "20240101"), adt("A08", "v1", "20240102"), adt("A03", "v1", "20240103")]
    assert read(*files, cohort=cohort) == [{"patient": "p1", "n": 1, "code": "class:I", "place": "NORTH", "age": 63}]
    cancelled = [adt("A01", "v2", "20240101"), adt("A11", "v2", "20240102")]
    assert read(*files, *cancelled, cohort=cohort)[0]["n"] == 1


def test_death_and_diagnoses_are_events(read: Callable[..., Rows]) -> None:
    text = message(
        "ADT^A03",
        "PID|1||p1^^^N^MR||||1960|M" + "|" * 21 + "20240110|Y",
        "PV1|1|I",
        "DG1|1||I21.9^Infarct^I10C||20240102",
        "PR1|1||5-361^Bypass^OPS||20240103",
    )
    cohort = {
        "index": {"kind": "condition", "codes": ["icd10:I21.9"]},
        "columns": {
            "died": {"from": "death", "take": "exists", "days_after": 30},
            "soon": {"from": "death", "take": "exists", "days_after": 7},
            "bypass": {"from": "procedure", "codes": ["ops:5-361"], "take": "exists", "days_after": 30},
            "age": {"from": "age"},
        },
    }
    # Born in 1960, which counts as 1 July.
    assert read(text, cohort=cohort, systems={"OPS": "ops"}) == [
        {"patient": "p1", "died": 1, "soon": 0, "bypass": 1, "age": 63}
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20240304", date(2024, 3, 4)),
        ("2024-03-04", date(2024, 3, 4)),
        ("202403040930", datetime(2024, 3, 4, 9, 30)),
        ("20240304093015.25-0530", datetime(2024, 3, 4, 9, 30, 15, 250_000, timezone(-timedelta(hours=5, minutes=30)))),
        ("2024-03-04T09:30:00Z", datetime(2024, 3, 4, 9, 30, tzinfo=UTC)),
        ("", None),
    ],
)
def test_times_are_read_in_the_styles_that_have_one_meaning(text: str, meant: date | None) -> None:
    assert stamp(text, None) == (meant, "")


@pytest.mark.parametrize(
    "text", ["04.03.2024", "03/04/2024", "20241304", "20240304093", "2024030425", "202403040930+9999"]
)
def test_other_dates_are_counted_and_never_guessed(text: str, read: Callable[..., Rows]) -> None:
    tally = Tally()
    assert read(result("13.0", at=text), tally=tally)[0]["x"] is None
    assert tally.counts == {"measurement: a time that is not understood": 1}


def test_a_time_without_a_zone_has_that_of_its_message_and_else_that_of_the_site(read: Callable[..., Rows]) -> None:
    east = result("1.0", at="20240102080000", sent="20240105100000+0900", order="1")
    utc = result("2.0", at="20240102000000+0000", order="2")
    assert read(east, utc)[0]["x"] == 2.0
    none = result("3.0", at="20240102003000", sent="20240105100000", order="3")
    assert read(none, utc, time_zone="UTC")[0]["x"] == 3.0
    assert read(none, utc, time_zone="Europe/Berlin")[0]["x"] == 2.0


def test_the_identifier_is_the_medical_record_number_or_that_of_an_authority(read: Callable[..., Rows]) -> None:
    pid = "PID|1||123^^^SSA^SS~p1^^^NORTH&1.2.3&ISO^MR~x9^^^MPI^PI"
    text = message("ORU^R01", pid, "OBX|1|NM|718-7^^LN||13|g/dL|||||F|||20240102")
    assert read(text)[0]["patient"] == "p1"
    assert read(text, authority="MPI")[0]["patient"] == "x9"
    tally = Tally()
    assert read(text, authority="NOWHERE", tally=tally) == []
    assert tally.counts == {"a message without a patient's number": 1}


def test_messages_that_are_broken_are_counted_and_the_rest_is_read(read: Callable[..., Rows]) -> None:
    wrong = ["MSH|\rPID|1||x\r", "MSH\r", "MSH|||||||||\r", message("ORU^R01", "OBX|1|NM|718-7^^LN||1"), message("ACK")]
    tally = Tally()
    assert read("".join(wrong) + result("13.0"), cohort=HB, tally=tally) == [{"patient": "p1", "x": 13.0}]
    assert tally.counts == {
        "a message without a header that can be read": 3,
        "a message without a patient's number": 1,
        "a message that is neither ADT nor ORU nor OUL": 1,
    }


def test_a_file_of_one_line_of_64_mb_is_passed_over_in_bounded_memory(
    tmp_path: Path, as_rows: AsRows, read: Callable[..., Rows]
) -> None:
    with (tmp_path / "long.hl7").open("wb") as file:
        file.write(result("12.0", order="1").encode() + result("11.0", order="9")[:-1].encode())
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b"\r" + result("13.0", order="2").encode())
    tally = Tally()
    tracemalloc.start()
    rows = as_rows(read_hl7v2(tmp_path, cohort=COUNT, tally=tally))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [{"patient": "p1", "x": 2}]
    assert tally.counts == {"a message of more than 16 MB": 1}
    assert peak < 60 << 20
    with pytest.raises(UsageError, match="no HL7 v2 message"):
        read(b"x" * 1000)


def test_a_message_of_separators_does_not_fill_the_memory(read: Callable[..., Rows]) -> None:
    tally = Tally()
    assert read(result("^" * 1_000_000), result("13.0", order="2"), tally=tally)[0]["x"] == 13.0
    assert tally.counts == {"a message with too many fields": 1}


@pytest.mark.parametrize(
    "options",
    [{"encoding": "klingon"}, {"bounds": "x"}, {"authority": 5}, {"systems": 5}, {"time_zone": "x"}, {"cohort": {}}],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], read: Callable[..., Rows]) -> None:
    with pytest.raises(UsageError):
        read(result("13.0"), **options)


def test_an_empty_folder_is_refused(tmp_path: Path, as_rows: AsRows) -> None:
    with pytest.raises(UsageError, match="holds no HL7 v2 messages"):
        as_rows(read_hl7v2(tmp_path, cohort=HB))


PIECE = st.text(st.sampled_from('|^~\\&\r\n\x0b\x1cXEFTS.brH0129<-+"A\u00e4\ud7ff'), max_size=12)


@settings(max_examples=EXECUTIONS, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["MSH", "PID", "PV1", "OBX", "OBR", "DG1", "MRG", "EVN", ""]), PIECE), max_size=8
    )
)
def test_no_text_breaks_the_reader(pieces: list[tuple[str, str]]) -> None:
    odd = "\r".join(f"{kind}|{text}" for kind, text in pieces)
    text = result("13.0") + message("ADT^A40", odd) + odd + "\r" + message("ORU^R01", "PID|||x", odd)
    cohort = {"columns": HB["columns"] | {"age": {"from": "age"}, "n": {"from": "encounter", "take": "count"}}}
    with TemporaryDirectory() as folder:
        (Path(folder) / "odd.hl7").write_bytes(text.encode("utf-8", "replace"))
        rows = pa.Table.from_batches(read_hl7v2(Path(folder), cohort=cohort)).to_pylist()
    assert len(rows) >= 1


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_break_a_message(head: bytes, more: bytes) -> None:
    for found in messages(BytesIO(b"MSH" + head + b"\r" + more), "x", Tally()):
        try:
            whole = Message(found, "utf-8")
        except LeftOut as reason:
            assert len(str(reason)) < 60
            continue
        for segment in whole.segments:
            for number in range(8):
                whole.get(segment, number, 2)
                whole.when(whole.get(segment, number))


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.text(max_size=20) | st.from_regex(r"[0-9+.:TZ-]{0,24}", fullmatch=True))
def test_no_text_breaks_times_and_numbers(text: str) -> None:
    stamp(text, UTC)
    number, problem = quantity(text, use_bounds=False)
    assert number is None or not problem
