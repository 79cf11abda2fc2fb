"""Whoever is woken by a log line finds it in docs/operations.md: every warning and error that the shells can log."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = ("warning", "error", "critical", "exception")
HEADING = "## Measurements for your own monitoring"
SOURCES = sorted(path for folder in ("client", "server") for path in (ROOT / folder).rglob("*.py"))


def events(source: str) -> Iterator[str]:
    """The fixed words of every event that is logged as a warning or worse, up to its first value: 'link not usable'."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr in LEVELS and isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
            text = ast.literal_eval(node.args[0])
            yield re.split(r"\s*\b\w+=%|:? %", text)[0] or text.partition("%")[0]


def unexplained(found: Iterator[str], page: str) -> list[str]:
    """Events that no first column of a table in ``page`` begins or holds in code letters."""
    shown = [re.sub(r" ?\.\.\..*", "", code) for row in _rows(page) for code in re.findall(r"`([^`]+)`", row[0])]
    return [event for event in found if not any(code.startswith(event) for code in shown)]


def _rows(page: str) -> Iterator[list[str]]:
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def page() -> str:
    """What the page says of alarms; the measurements at its end are no alarms."""
    alarms, _, measurements = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition(HEADING)
    assert measurements, "the page has another heading"
    return alarms


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_warning_of_a_module_is_explained(path: Path) -> None:
    assert unexplained(events(path.read_text(encoding="utf-8")), page()) == []


def test_the_modules_log_warnings_at_all() -> None:
    assert sum(len(list(events(path.read_text(encoding="utf-8")))) for path in SOURCES) > 20


def test_an_event_that_no_row_explains_is_found() -> None:
    source = 'log.warning("the sky fell site=%s", s)\nlog.error("study=%s %s", a, b)\nlog.info("no matter x=%s", x)\n'
    assert list(events(source)) == ["the sky fell", "study="]
    assert unexplained(events(source), page()) == ["the sky fell"]
    assert unexplained(iter(["the sky fell"]), "the sky fell\n| `the sky` fell | . | . |\n") == ["the sky fell"]


def test_every_row_has_one_meaning_and_one_cure() -> None:
    rows = [row for row in _rows(page()) if row[1:] != ["it means", "do"]]
    assert len(rows) > 30
    assert [row for row in rows if len(row) != 3 or not all(row)] == []
