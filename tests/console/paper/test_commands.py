"""The commands: ``site statement``, ``site audit-report``, ``site dpia`` and ``report verify``, as they are typed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from wardround.console.cli import main


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    """(exit code, output, errors)."""
    monkeypatch.setattr("sys.argv", ["wardround", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("suffix", [".json", ".html", ".pdf"])
def test_a_statement_is_written_once_and_checked(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    out, folder, key = tmp_path / f"paper{suffix}", story.site.folder.path, story.site.identity.public.key.hex()
    code, said, _ = run(capsys, monkeypatch, "site", "statement", folder, "heart_disease", "--out", out)
    assert code == 0 and key in said and out.stat().st_size > 1000
    code, _, error = run(capsys, monkeypatch, "site", "statement", folder, "heart_disease", "--out", out)
    assert code == 2 and "exists already" in error
    code, said, _ = run(capsys, monkeypatch, "report", "verify", out, "--key", key)
    assert code == 0 and said.endswith("All that was checked holds.\n")
    code, said, _ = run(capsys, monkeypatch, "report", "verify", out, "--key", "ab" * 32)
    assert code == 1 and said.endswith("DO NOT RELY ON THIS PAPER.\n")
    assert "FAILS: the key is not the one that you gave" in said


def test_an_audit_report_goes_on_from_the_one_before_it(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, folder = tmp_path / "first.pdf", tmp_path / "second.html", story.site.folder.path
    days = ("--from", "2026-11-01", "--to", "2026-12-31")
    assert run(capsys, monkeypatch, "site", "audit-report", folder, *days, "--out", first)[0] == 0
    story.site.run(story.plan, 13, 14)
    words = ("site", "audit-report", folder, *days, "--out", second, "--former", first)
    assert run(capsys, monkeypatch, *words)[0] == 0
    code, said, _ = run(capsys, monkeypatch, "report", "verify", second, "--json")
    found = json.loads(said)
    assert code == 0 and found["accepted"] and found["kind"] == "audit"
    assert any("continues the former report's checkpoint" in one["says"] for one in found["findings"])


def test_a_dpia_annex_is_written(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "annex.html"
    assert run(capsys, monkeypatch, "site", "dpia", story.site.folder.path, "heart_disease", "--out", out)[0] == 0
    assert "To be written" in out.read_text(encoding="utf-8")
    assert run(capsys, monkeypatch, "report", "verify", out)[0] == 0


def test_whoever_does_not_trust_a_page_makes_one_of_the_signed_content(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "a.html", tmp_path / "b.html"
    run(capsys, monkeypatch, "site", "statement", story.site.folder.path, "heart_disease", "--out", out)
    good = out.read_bytes()
    out.write_bytes(good.replace(b"anna", b"mona"))
    code, said, _ = run(capsys, monkeypatch, "report", "verify", out, "--page", made)
    assert code == 1 and "the HTML page does not say what was signed" in said
    assert made.read_bytes() == good


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--from", "2026-13-01", "--to", "2026-12-31", "--out", "x.pdf"), "'2026-13-01' is no day"),
        (("--from", "2026-12-01", "--to", "2026-11-01", "--out", "x.pdf"), "ends before it begins"),
        (("--from", "2020-01-01", "--to", "2020-02-01", "--out", "x.pdf"), "begun after 2020-02-01"),
        (("--from", "2026-11-01", "--to", "2026-12-01", "--out", "x.doc"), "not written as '.doc'"),
        (("--from", "2026-11-01", "--to", "2026-12-01", "--out", "x.pdf", "--language", "xx"), "no translation"),
        (("--from", "2026-11-01", "--to", "2026-12-01", "--out", "x.pdf", "--language", "de"), "is a draft"),
        (("--from", "2026-11-01", "--to", "2026-12-01", "--out", "x.json", "--language", "vi"), "is a draft"),
    ],
)
def test_what_cannot_be_is_said_in_two_lines_and_leaves_no_file(
    story: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, monkeypatch, "site", "audit-report", story.site.folder.path, *words)
    assert code == 2 and says in error and len(error.splitlines()) == 2
    assert list(tmp_path.glob("x.*")) == []


def test_a_file_that_is_no_paper_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (
        ("a.pdf", b"%PDF-1.7\n"),
        ("b.json", b"{}"),
        ("c.html", b"<html></html>"),
        ("d", b"\xff\x00"),
    ):
        (tmp_path / name).write_bytes(content)
        code, _, error = run(capsys, monkeypatch, "report", "verify", tmp_path / name)
        assert code == 2 and len(error.splitlines()) == 2


def test_where_the_libraries_for_pages_are_not_installed_two_lines_say_so(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    ours = ("wardround.console.paper", "wardround.console.commands.paper")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    code, _, error = run(capsys, monkeypatch, "report", "verify", tmp_path / "a.pdf")
    assert code == 2 and "papers need 'segno'" in error and "wardround[paper]" in error
