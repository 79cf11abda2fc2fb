"""Papers in French: complete, checked like any other, French numbers and days; a draft of a language signs none."""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wardround.console import i18n, paper
from wardround.console.cli import main
from wardround.console.i18n import translations
from wardround.console.paper import sheets
from wardround.console.paper.blocks import Blank, Sheet
from wardround.console.paper.check import Known, check
from wardround.console.paper.model import Epsilon, Kind
from wardround.console.paper.sheets import language, render, sheet
from wardround.console.paper.terms import Words, clean
from wardround.protocol.errors import UsageError

SOURCES = sorted(Path(str(paper.__file__)).parent.glob("*.py"))
FRENCH = Words(translations("fr"), "fr")


def texts(made: Sheet) -> Iterator[str]:
    """Everything that a paper says, in its order."""
    yield from (made.eyebrow, made.title, made.lead, *made.footer.lines, made.footer.alternative, made.footer.page)
    for block in made.blocks:
        if hasattr(block, "caption"):
            yield from (block.caption, *(column.title for column in block.columns))
            yield from (part for row in block.rows for cell in row.cells for part in (cell.text, cell.sub))
        elif hasattr(block, "rows"):
            yield from (part for fact in block.rows for part in (fact.name, fact.text))
        elif isinstance(block, Blank):
            yield from (block.label, block.asks)
        else:
            yield from (getattr(block, "title", ""), getattr(block, "text", ""))
            yield from (*getattr(block, "items", ()), *getattr(block, "texts", ()))


def sentences() -> set[str]:
    """Every sentence of the papers' code that goes through a catalogue."""
    found = set()
    for file in SOURCES:
        for call in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(call, ast.Call):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if name in ("_", "ngettext"):
                    found |= {one.value for one in call.args if isinstance(one, ast.Constant)} - {None}
    return {one for one in found if isinstance(one, str)}


def given(signed: Any) -> set[str]:
    """Texts of the content that others wrote: they stay in their own language."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(key)
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)
        elif isinstance(value, str):
            found.add(clean(value))
            if value.startswith("{"):
                walk(json.loads(value))

    walk(json.loads(signed.file))
    return found


@pytest.mark.parametrize("mode", ["local", "dist", "masks"])
@pytest.mark.parametrize("kind", list(Kind))
def test_no_english_is_left_in_a_french_paper(telling: Callable[[str], Any], mode: str, kind: Kind) -> None:
    story = telling(mode)
    english, french = story.paper(kind), story.paper(kind, "fr")
    pairs = list(zip(texts(sheet(english)), texts(sheet(french)), strict=True))
    own = given(french)
    # What is the same in both is no sentence of ours: numbers, hashes, names, and texts that the plan's people wrote.
    same = {one for one, other in pairs if one == other}
    left = [one for one in same if not _free_of_words(one, own)]
    assert left == [] and len(pairs) - len(same) > 40
    said = "\n".join(text for _, text in pairs)
    fragments = {part.strip() for one in sentences() for part in re.split(r"\{\w+\}", one)}
    assert [one for one in fragments if len(one) > 11 and one not in own and one in said] == []


def _free_of_words(text: str, own: set[str]) -> bool:
    for one in sorted(own, key=len, reverse=True):
        text = text.replace(one, "") if len(one) > 2 else text
    text = re.sub(r"\b[0-9a-f]{4,}\b|Wardround|UTC|Mode|mmHg|\w+ \d[\w.+]*", "", text)
    return not re.search(r"[A-Za-z]{4,}", text)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("suffix", [".json", ".html", ".pdf"])
def test_a_french_paper_is_accepted(story: Any, kind: Kind, suffix: str) -> None:
    data = render(story.paper(kind, "fr"), suffix)
    verdict = check(data, Known(key=story.site.identity.public.key))
    assert verdict.accepted and verdict.signed.paper.language == "fr"
    assert any("byte for byte" in one.says for one in verdict.findings) is (suffix != ".json")


def test_a_sentence_that_was_changed_on_a_french_page_is_noticed(story: Any) -> None:
    data = render(story.statement(language="fr"), ".html")
    changed = data.replace(b"quels que soient les complices", b"sauf les complices")
    assert changed != data and not check(changed, Known()).accepted


def test_the_reader_of_another_language_makes_the_same_page(story: Any) -> None:
    for tongue in ("en", "fr"):
        signed = story.statement(language=tongue)
        first = render(signed, ".html")
        with i18n.speaking("de"):
            assert render(signed, ".html") == first
            assert i18n.spoken() == "de"


def test_no_sentence_hides_in_an_f_string_where_no_catalogue_finds_it() -> None:
    hidden = [
        f"{file.name}: {ast.unparse(call)}"
        for file in SOURCES
        for string in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(string, ast.JoinedStr)
        for call in ast.walk(string)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) in ("_", "ngettext")
    ]
    assert hidden == []


def test_numbers_and_days_are_written_as_french_writes_them() -> None:
    assert FRENCH.number(1234567) == "1\u202f234\u202f567"
    assert FRENCH.marked("12.5 %") == "12,5 %"
    assert FRENCH.moment("2026-11-23T09:30:00Z") == "23/11/2026 09:30 UTC"
    assert [FRENCH.day(one) for one in ("2026-11-23", "2026-11", "2026")] == ["23/11/2026", "11/2026", "2026"]
    assert FRENCH.sentence(Epsilon("2.99", 1e-4, "everyone")).startswith("ε 2,99 (à δ 0,0001\u00a0; unité")
    assert Words().moment("2026-11-23T09:30:00Z") == "2026-11-23 09:30 UTC"
    assert clean("1\u202f000 patients\u00a0\u00a0: tous") == "1\u00a0000 patients\u00a0: tous"


@pytest.mark.parametrize("draft", [one.code for one in i18n.LANGUAGES if one.draft])
def test_a_draft_of_a_language_makes_no_paper(story: Any, draft: str) -> None:
    with pytest.raises(UsageError, match="a draft that nobody has checked") as refused:
        language(draft)
    assert "--language en, --language fr" in refused.value.hint
    for suffix in (".html", ".pdf"):
        with pytest.raises(UsageError, match="is a draft"):
            render(story.statement(language=draft), suffix)
    assert sheets.LANGUAGES == ("en", "fr")


def test_where_the_library_of_catalogues_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "babel.messages.catalog", None)
    translations.cache_clear()
    try:
        with pytest.raises(UsageError, match="papers in 'fr' need 'babel'") as refused:
            language("fr")
        assert "wardround[paper]" in refused.value.hint
        assert language("en").gettext("Entry") == "Entry"
    finally:
        translations.cache_clear()


def test_the_command_writes_a_french_paper_that_verifies(
    story: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "declaration.html", str(story.site.folder.path)
    for words in (
        ("site", "statement", folder, "heart_disease", "--out", str(out), "--language", "fr"),
        ("report", "verify", str(out), "--key", story.site.identity.public.key.hex()),
    ):
        monkeypatch.setattr("sys.argv", ["wardround", *words])
        main()
    assert capsys.readouterr().out.endswith("All that was checked holds.\n")
    page = out.read_text(encoding="utf-8")
    assert '<html lang="fr">' in page and "Déclaration de confidentialité" in page
