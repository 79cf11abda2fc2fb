"""From a signed content to its pages: words in its language first, then HTML or PDF."""

from gettext import NullTranslations, translation
from pathlib import Path
from typing import Final

from wardround.console.paper.as_json import Signed
from wardround.console.paper.audit_words import audit_sheet
from wardround.console.paper.blocks import Sheet
from wardround.console.paper.dpia_words import dpia_sheet
from wardround.console.paper.model import Kind
from wardround.console.paper.statement_words import statement_sheet
from wardround.console.paper.terms import Words
from wardround.protocol.errors import UsageError

SUFFIXES: Final = (".json", ".html", ".pdf")
LOCALES: Final = Path(__file__).parents[1] / "web" / "locale"
"""Where the console keeps its catalogues."""


def language(tag: str) -> NullTranslations:
    """The catalogue of a language; English needs none. Raises UsageError where there is no catalogue."""
    if tag == "en":
        return NullTranslations()
    try:
        return translation("messages", LOCALES, [tag])
    except OSError:
        raise UsageError(f"there is no translation into '{tag}' here", "take English: --language en") from None


def sheet(signed: Signed) -> Sheet:
    """The paper in words, in its own language."""
    paper, words = signed.paper, Words(language(signed.paper.language))
    if paper.audit is not None:
        return audit_sheet(paper, paper.audit, signed.digest, signed.name, words)
    assert paper.about is not None
    make = dpia_sheet if paper.kind is Kind.DPIA else statement_sheet
    return make(paper, paper.about, signed.digest, signed.name, words)


def render(signed: Signed, suffix: str) -> bytes:
    """The file of ``signed`` as .json, .html or .pdf: the same bytes for the same content and software.

    Raises:
        UsageError: another suffix.
    """
    if suffix == ".json":
        return signed.file
    if suffix == ".html":
        from wardround.console.paper.as_html import render_html

        return render_html(sheet(signed), signed.file)
    if suffix == ".pdf":
        from wardround.console.paper.as_pdf import render_pdf

        return render_pdf(sheet(signed), signed.file, signed.paper.made_at, signed.digest)
    raise UsageError(
        f"no paper is written as '{suffix or 'a file without a suffix'}'", f"name it {', '.join(SUFFIXES)}"
    )
