"""From a signed content to its pages: words in its language first, then HTML or PDF."""

from gettext import NullTranslations
from typing import Final

from wardround.console import i18n
from wardround.console.paper.as_json import Signed
from wardround.console.paper.audit_words import audit_sheet
from wardround.console.paper.blocks import Sheet
from wardround.console.paper.dpia_words import dpia_sheet
from wardround.console.paper.model import Kind
from wardround.console.paper.statement_words import statement_sheet
from wardround.console.paper.terms import Words
from wardround.protocol.errors import UsageError

SUFFIXES: Final = (".json", ".html", ".pdf")
LANGUAGES: Final = tuple(one.code for one in i18n.LANGUAGES if not one.draft)
"""Of papers: a hospital signs no words that nobody who speaks them has checked."""


def language(tag: str) -> NullTranslations:
    """The catalogue of a language of papers. Raises UsageError for another, or where its library is missing."""
    hint = f"take one of: --language {', --language '.join(LANGUAGES)}"
    if tag not in i18n.CODES:
        raise UsageError(f"there is no translation into '{tag}' here", hint)
    if tag not in LANGUAGES:
        raise UsageError(f"no paper is signed in '{tag}': its translation is a draft that nobody has checked", hint)
    try:
        return i18n.translations(tag)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"papers in '{tag}' need '{str(error.name).partition('.')[0]}', which is not installed here",
            "install wardround with its extra: wardround[paper]",
        ) from error


def sheet(signed: Signed) -> Sheet:
    """The paper in words, in its own language, whichever its reader speaks."""
    paper = signed.paper
    words = Words(language(paper.language), paper.language)
    # What a plan predicts is said by functions that pages use too: they speak the language of the moment.
    with i18n.speaking(paper.language):
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
