"""The three renderings say the same; every epsilon has its conditions; what others wrote cannot act; pages are few."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import date
from gettext import NullTranslations
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.console.paper.as_json import parse, sign
from wardround.console.paper.blocks import Blank
from wardround.console.paper.check import Known, check
from wardround.console.paper.gather import audit_report, statement
from wardround.console.paper.model import Epsilon, Kind
from wardround.console.paper.sheets import render, sheet
from wardround.console.paper.spending import stated
from wardround.console.paper.terms import Words
from wardround.privacy.meaning import conditions

NASTY = "<script>alert(1)</script> \x1b[2J\u202egnihtyna\x00 \" onload='x' {{ 7*7 }} %s & Việt Nam é ∑ 漢字"


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def html_text(page: bytes) -> str:
    parser = _Text()
    parser.feed(page.decode())
    return re.sub(r"\s+", " ", " ".join(parser.found))


def pdf_text(file: bytes) -> str:
    pages = [page.extract_text().split("Check without a network")[0] for page in PdfReader(BytesIO(file)).pages]
    return re.sub(r"\s+", " ", " ".join(pages))


def json_text(file: bytes) -> str:
    return file.decode()


ALONE = re.compile(r"ε (?:≤ )?\d")
WHOLE = {
    "en": re.compile(
        r"ε \d+\.\d\d (\()?at δ 0\.\d+; unit: one patient of one site; adjacency: add or remove one patient; "
        r"against (?:everyone, whoever colludes|the coordinator [^;]*(?:; other sites keep their noise)?); rounded up"
    ),
    "fr": re.compile(
        r"ε \d+,\d\d (\()?à δ 0,\d+ ; unité : un patient d’un site ; adjacence : ajout ou retrait d’un patient ; "  # noqa: RUF001
        r"face à : (?:tous, quels que soient les complices|le coordinateur [^;]*"
        r"(?:; les autres sites gardent leur bruit)?) ?; arrondi vers le haut"
    ),
}


def bare_epsilons(text: str, language: str = "en") -> int:
    """Epsilons with a value that lack delta, unit, adjacency or who may collude."""
    return len(ALONE.findall(text)) - len(WHOLE[language].findall(text))


def bare_in_json(content: Any) -> int:
    """The same in JSON: an object with an epsilon's value that lacks a field, or a key that names an epsilon alone."""
    found = 0
    if isinstance(content, dict):
        needed = {"value", "delta", "unit", "adjacency", "against"}
        for key, value in content.items():
            if key in ("epsilon", "spent", "cap") and value is not None:
                found += not (isinstance(value, dict) and needed <= value.keys())
            found += bare_in_json(value)
    elif isinstance(content, list):
        found = sum(bare_in_json(one) for one in content)
    return found


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("mode", ["local", "dist", "masks"])
def test_every_epsilon_of_every_rendering_has_its_conditions_beside_it(
    telling: Callable[[str], Any], mode: str, kind: Kind, language: str
) -> None:
    signed, whole = telling(mode).paper(kind, language), WHOLE[language]
    texts = [html_text(render(signed, ".html")), pdf_text(render(signed, ".pdf"))]
    assert [bare_epsilons(text, language) for text in texts] == [0, 0]
    assert len({len(whole.findall(text)) for text in texts}) == 1, "the renderings have as many"
    if mode != "masks":
        assert whole.search(texts[0]) and whole.search(texts[1])
    content = json.loads(signed.file)["content"]
    for part in ("about", "audit"):
        if content[part] is not None:
            content[part].pop("plan", None)  # a plan's terms are one part: epsilon, delta, mode side by side
            assert bare_in_json(content[part]) == 0


def test_an_epsilon_without_its_conditions_would_be_seen() -> None:
    whole = "ε 2.99 (at δ 0.0001; unit: one patient of one site; adjacency: add or remove one patient; against everyone, whoever colludes; rounded up)"  # noqa: E501
    assert bare_epsilons(whole) == 0
    assert bare_epsilons(f"{whole} and ε 3.00") == 1
    assert bare_epsilons(whole.replace("unit: one patient of one site; ", "")) == 1
    whole = "ε 2,99 (à δ 0,0001 ; unité : un patient d’un site ; adjacence : ajout ou retrait d’un patient ; face à : tous, quels que soient les complices ; arrondi vers le haut)"  # noqa: E501, RUF001
    assert bare_epsilons(whole, "fr") == 0
    assert bare_epsilons(whole.replace("adjacence : ajout ou retrait d’un patient ; ", ""), "fr") == 1  # noqa: RUF001
    assert bare_in_json([{"epsilon": 2.99}]) == 1
    assert bare_in_json({"epsilon": {"value": "2.99", "delta": 1e-4, "unit": "patient", "adjacency": "x"}}) == 1


@pytest.mark.parametrize("delta", [1e-4, 1e-5])
def test_the_conditions_are_those_of_every_other_page(delta: float) -> None:
    said = Words().conditions(stated(2.5, "training", delta)).replace("δ", "delta")
    assert said.replace(f"{delta:f}".rstrip("0"), f"{delta:g}") == conditions(delta)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("mode", ["local", "dist", "masks"])
def test_no_paper_says_what_may_not_be_claimed(telling: Callable[[str], Any], mode: str, kind: Kind) -> None:
    signed = telling(mode).paper(kind)
    for text in (html_text(render(signed, ".html")), pdf_text(render(signed, ".pdf"))):
        assert not re.search(r"complian|anonym|HIPAA|consent|zero leakage|guarantees? that", text, re.I)


def test_a_study_of_sums_only_says_so_and_names_no_epsilon(telling: Callable[[str], Any]) -> None:
    story = telling("masks")
    for text in (html_text(render(story.statement(), ".html")), pdf_text(render(story.statement(), ".pdf"))):
        assert "no privacy guarantee, sums only" in text
        assert not ALONE.search(text)
        assert "anna, ben" in text, "the two officers who waived it"


def test_pdf_and_html_say_the_same_words(story: Any) -> None:
    for kind in Kind:
        signed = story.paper(kind)
        words = Words(NullTranslations())
        assert words._("Entry") == "Entry"
        page, pdf = html_text(render(signed, ".html")), pdf_text(render(signed, ".pdf"))
        for block in sheet(signed).blocks:
            for text in _texts(block):
                squeezed = re.sub(r"\s+", "", text)
                assert squeezed in re.sub(r"\s+", "", page), text
                # A table's row may go on, on the next page, below the head again: then it is in two parts.
                assert squeezed in re.sub(r"\s+", "", pdf), text


def _texts(block: Any) -> list[str]:
    if hasattr(block, "caption"):
        cells = [cell for row in block.rows for cell in row.cells]
        return [block.caption, *(part for cell in cells for part in (cell.text, cell.sub))]
    if hasattr(block, "rows"):
        return [part for fact in block.rows for part in (fact.name, fact.text)]
    return [*getattr(block, "items", ()), *getattr(block, "texts", ()), getattr(block, "text", "")]


@pytest.mark.parametrize("suffix", [".json", ".html", ".pdf"])
def test_the_same_content_gives_the_same_bytes(story: Any, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = story.audit(story.kept)
    first = render(signed, suffix)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    again = parse(signed.file)
    assert render(again, suffix) == first


def test_a_pdf_holds_no_time_but_the_contents_own(story: Any) -> None:
    data = PdfReader(BytesIO(render(story.statement(), ".pdf")))
    xmp = data.xmp_metadata
    assert xmp is not None and xmp.xmp_modify_date is not None and xmp.xmp_create_date is not None
    assert {xmp.xmp_modify_date.isoformat()[:19], xmp.xmp_create_date.isoformat()[:19]} == {"2026-12-24T12:00:00"}
    assert xmp.dc_title == {"x-default": story.plan.title}
    assert data.metadata is None, "PDF/A keeps its metadata in one place"


def test_a_pdf_has_the_signed_content_attached_and_its_hashes_on_every_page(story: Any) -> None:
    signed = story.audit(story.kept)
    reader = PdfReader(BytesIO(render(signed, ".pdf")))
    ((name, contents),) = reader.attachments.items()
    assert (name, list(contents)) == (signed.name, [signed.file])
    text = signed.paper.anchor.note.partition("\n\n")[0] + "\n"
    checkpoint = hashlib.sha256(text.encode()).hexdigest()
    for number, page in enumerate(reader.pages, 1):
        found = page.extract_text()
        assert checkpoint in found and signed.digest in found
        assert f"Page {number} of {len(reader.pages)}" in found
        assert "wardround report verify" in found
    assert sheet(signed).footer.code.split("\n")[1:] == [f"checkpoint {checkpoint}", f"content {signed.digest}"]


def test_a_pdf_has_bookmarks_for_its_headings_and_says_its_language(story: Any) -> None:
    reader = PdfReader(BytesIO(render(story.statement(), ".pdf")))
    titles = [one.title for one in reader.outline if not isinstance(one, list)]
    assert titles[:2] == ["How patients are protected", "Purpose and responsibility"]
    assert reader.trailer["/Root"]["/Lang"] == "en"


def test_the_dpia_annex_leaves_to_people_what_people_must_say(story: Any) -> None:
    signed = story.statement(Kind.DPIA)
    blanks = [block for block in sheet(signed).blocks if isinstance(block, Blank)]
    assert len(blanks) >= 8
    for text in (html_text(render(signed, ".html")), pdf_text(render(signed, ".pdf"))):
        assert text.count("To be written") == len(blanks) + 1, "each blank, and the note on how to use them"
        for article in ("35(7)(a)", "35(7)(b)", "35(7)(c)", "35(7)(d)", "35(2)", "35(9)"):
            assert article in text


def test_texts_that_others_wrote_are_shown_and_never_act(site: Any, approve_study: Callable[..., Any]) -> None:
    governance = {"purpose": NASTY, "permitted_use": "x" * 20_000}
    base = approve_study.__globals__["plan_of"]()
    plan = approve_study(site, title=NASTY, governance=base.governance.model_dump(mode="json") | governance)
    site.run(plan, 1, 2)
    site.refuse(plan, 3, NASTY)
    source = site.source()
    for paper in (statement(source, plan.digest), audit_report(source, date(2026, 11, 1), date(2026, 12, 31))):
        signed = sign(paper, source.identity)
        page = render(signed, ".html")
        parser = _Text()
        parser.feed(page.decode())
        assert "script" not in {tag for tag, _ in parser.tags}
        assert not {name for _, attributes in parser.tags for name in attributes if name.startswith("on")}
        assert b"\x1b" not in page and b"\x00" not in page and "\u202e" not in page.decode()
        assert "\\x1b[2J" in unescape(page.decode()) and "{{ 7*7 }}" in page.decode()
        pdf = PdfReader(BytesIO(render(signed, ".pdf")))
        assert len(pdf.pages) <= 7
        text = "".join(one.extract_text() for one in pdf.pages)
        assert "Việt Nam" in text and "\\u6f22" in text, "what the fonts lack is spelt out"
        assert check(render(signed, ".pdf"), Known()).accepted
        assert check(page, Known()).accepted


def test_html_asks_for_nothing_and_allows_its_own_style_only(story: Any) -> None:
    page = render(story.statement(), ".html").decode()
    parser = _Text()
    parser.feed(page)
    policy = next(a["content"] for tag, a in parser.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    outside = [a for _, a in parser.tags if "src" in a or str(a.get("href", "data:"))[:5] != "data:"]
    assert outside == []
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy


@pytest.mark.slow
def test_ten_thousand_entries_take_few_pages_and_are_checked(site: Any, approve_study: Callable[..., Any]) -> None:
    plan = approve_study(site, rounds=3400, privacy=_quiet(approve_study))
    store = site.ledger._store
    store.execute("PRAGMA synchronous = OFF")
    site.run(plan, 1, 3400)
    source = site.source()
    assert len(source.book.entries) > 10_000
    signed = sign(audit_report(source, date(2026, 1, 1), date(2027, 12, 31)), source.identity)
    pdf = render(signed, ".pdf")
    assert len(PdfReader(BytesIO(pdf)).pages) <= 6
    assert check(pdf, Known()).accepted


def _quiet(approve_study: Callable[..., Any]) -> Any:
    """So much noise that thousands of rounds fit into the budget."""
    terms = approve_study.__globals__["plan_of"]().privacy.model_dump()
    return terms | {"noise_multiplier": 60.0}


def test_many_decisions_and_refusals_stay_on_few_pages(site: Any, approve_study: Callable[..., Any]) -> None:
    plan = approve_study(site)
    for version in range(2, 200):
        site.grant(plan, version=version)
        site.refuse(plan, version, f"reason {version}")
    source = site.source()
    signed = sign(audit_report(source, date(2026, 1, 1), date(2027, 12, 31)), source.identity)
    audit = signed.paper.audit
    assert audit is not None
    assert len(audit.lines) <= 122 and len(audit.refusals) == 40 and audit.more_refusals == 158
    assert len(PdfReader(BytesIO(render(signed, ".pdf"))).pages) <= 16
    assert check(signed.file, Known()).accepted


def test_who_may_collude_is_said_for_every_number_of_sites() -> None:
    def against(colluding: int | None) -> str:
        return Words().against(Epsilon("1.00", 1e-4, "consortium", colluding))

    assert against(0) == "the coordinator, or one other hospital, by itself"
    assert against(1).endswith("at most 1 other hospital")
    assert against(3).endswith("at most 3 other hospitals")
    assert against(None).startswith("the coordinator and as many sites as a plan counts")
    assert stated(1.0, CONSORTIUM_DOMAIN, 1e-4, 3).colluding == 3


def test_every_sentence_goes_through_the_translation(story: Any) -> None:
    class Marked(NullTranslations):
        def gettext(self, message: str) -> str:
            return f"«{message}»"

        def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
            return f"«{msgid1 if n == 1 else msgid2}»"

    from wardround.console.paper.audit_words import audit_sheet
    from wardround.console.paper.dpia_words import dpia_sheet
    from wardround.console.paper.statement_words import statement_sheet

    words = Words(Marked())
    statement_, dpia, audit = (story.paper(kind).paper for kind in (Kind.STATEMENT, Kind.DPIA, Kind.AUDIT))
    for made in (
        statement_sheet(statement_, statement_.about, "d", "s", words),
        dpia_sheet(dpia, dpia.about, "d", "s", words),
        audit_sheet(audit, audit.audit, "d", "s", words),
    ):
        texts = [made.lead, *(text for block in made.blocks if not hasattr(block, "rows") for text in _texts(block))]
        texts += [block.title for block in made.blocks if hasattr(block, "title")]
        own = {story.plan.study, story.plan.title}
        assert [text for text in texts if text and "«" not in text and text not in own] == []
