"""Workbooks as hospitals send them: titles above the header, formulas, errors, dates, whole numbers that are floats."""

import datetime
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openpyxl import Workbook

from wardround.client.connectors import read_batches, read_table
from wardround.protocol.errors import UsageError

SECRET = "Fernsby-4711"


def book(folder: Path, rows: list[list[Any]], title: str = "Patients", name: str = "site.xlsx") -> Path:
    made = Workbook()
    sheet = made.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(row)
    made.create_sheet("Notes").append(["nothing"])
    made.save(folder / name)
    return folder / name


def test_cells_come_as_the_text_that_was_meant(tmp_path: Path) -> None:
    path = book(
        tmp_path,
        [
            ["patient", "age", "hb", "seen", "at", "flag", "word"],
            ["p1", 64.0, 13.25, datetime.datetime(2026, 2, 28), datetime.datetime(2026, 2, 28, 12, 30), True, "ö"],
            ["p2", None, 1e-7, None, None, False, "#N/A"],
            [None] * 7,
            ["0003", "64,5", "<5", "28.2.2026", None, None, " x "],
        ],
    )
    assert read_table("excel", path, {}).to_pylist() == [
        {"patient": "p1", "age": "64", "hb": "13.25", "seen": "2026-02-28", "at": "2026-02-28T12:30:00", "flag": "1",
         "word": "ö"},
        {"patient": "p2", "age": None, "hb": "1e-07", "seen": None, "at": None, "flag": "0", "word": None},
        {"patient": "0003", "age": "64,5", "hb": "<5", "seen": "28.2.2026", "at": None, "flag": None, "word": " x "},
    ]  # fmt: skip


def test_the_header_may_stand_lower_and_a_sheet_has_a_name(tmp_path: Path) -> None:
    path = book(tmp_path, [["Export of the ward", None], [None, None], ["patient", "age"], ["p1", 3]], "Ward 7")
    assert read_table("excel", path, {"sheet": "Ward 7", "header": 3}, ["age"]).to_pydict() == {"age": ["3"]}
    with pytest.raises(UsageError, match="no sheet 'Ward 8'") as error:
        read_table("excel", path, {"sheet": "Ward 8"})
    assert "Ward 7, Notes" in error.value.hint


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([["a", "a"]], {}, "two columns 'a'"),
        ([[None, None]], {}, "no names of columns in row 1"),
        ([["a"]], {"header": 9}, "no names of columns in row 9"),
        ([["a"]], {"header": 0}, "row 1 or below"),
    ],
)
def test_a_header_that_is_none_is_named(
    tmp_path: Path, rows: list[list[Any]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_table("excel", book(tmp_path, rows), options)


def test_files_that_are_no_workbook_are_named_without_their_content(tmp_path: Path) -> None:
    whole = book(tmp_path, [["patient", "note"], *[["p", SECRET]] * 500]).read_bytes()
    for name, content, said in [
        ("cut.xlsx", whole[: len(whole) // 2], "not an Excel workbook"),
        ("text.xlsx", SECRET.encode(), "not an Excel workbook"),
        ("empty.xlsx", b"", "not an Excel workbook"),
        ("old.xls", b"\xd0\xcf\x11\xe0", "before 2007"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=said) as error:
            read_table("excel", tmp_path / name, {})
        assert SECRET not in error.value.lines()
    with pytest.raises(UsageError, match="no file"):
        read_table("excel", tmp_path / "none.xlsx", {})


def test_a_sheet_with_its_header_alone_has_columns(tmp_path: Path) -> None:
    found = read_table("excel", book(tmp_path, [["a", "b"]]), {})
    assert found.schema == pa.schema([("a", pa.string()), ("b", pa.string())]) and found.num_rows == 0


def test_rows_are_read_one_after_the_other(tmp_path: Path) -> None:
    made = Workbook(write_only=True)
    sheet = made.create_sheet("all")
    sheet.append([f"column {number}" for number in range(10)])
    for number in range(6_000):
        sheet.append([f"text {number} {place}" for place in range(10)])
    made.save(tmp_path / "large.xlsx")
    tracemalloc.start()
    rows = sum(batch.num_rows for batch in read_batches("excel", tmp_path / "large.xlsx", {}, ["column 3"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 6_000 and peak < 12e6, peak
