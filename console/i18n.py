"""Words in the reader's language, through gettext: English in the code, catalogues of PO files in ``web/locale``.

A language has one PO file for each page or subject, so that pages are translated apart; they are read when a language
is first used. Nothing but the standard library is imported for English, so that a command line without the console's
libraries says the same words; Babel reads the catalogues of any other language, which the console and papers speak.
"""

import gettext as std
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("web") / "locale"
SOURCE: Final = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the console. ``draft``: nobody who speaks it has read the words yet, and the page says so.

    ``marks``: what stands between thousands, and before decimals.
    """

    code: str
    name: str
    draft: bool = False
    marks: tuple[str, str] = (",", ".")


LANGUAGES: Final = (
    Language("en", "English"),
    Language("fr", "Français", marks=("\u202f", ",")),
    Language("de", "Deutsch", draft=True, marks=(".", ",")),
    Language("vi", "Tiếng Việt", draft=True, marks=(".", ",")),
)
CODES: Final = tuple(language.code for language in LANGUAGES)
_MARKS: Final = {language.code: language.marks for language in LANGUAGES}

_now: ContextVar[str] = ContextVar("language", default=SOURCE)


def use(language: str) -> None:
    """Speak ``language`` for the rest of this request."""
    _now.set(language)


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak ``language`` within, and what was spoken before from then on."""
    before = _now.set(language)
    try:
        yield
    finally:
        _now.reset(before)


def spoken() -> str:
    """The language of this request; English outside of one."""
    return _now.get()


def _(message: str) -> str:
    """``message`` in the language of this request."""
    return translations(spoken()).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The form that ``count`` needs, in the language of this request; it is not filled in yet."""
    return translations(spoken()).ngettext(one, many, count)


def N_(message: str) -> str:
    """Mark ``message`` for translation where it is only written down; ``_`` translates it when it is shown."""
    return message


def numeral(value: float) -> str:
    """A number of a plan, as exactly as the plan has it: ``12,345`` of them, or ``0.0001``; with the reader's marks."""
    text = f"{value:,}" if isinstance(value, int) else f"{Decimal(repr(value)).normalize():f}"
    return marked(text, spoken()).replace("-", "\N{MINUS SIGN}")


def marked(number: str, language: str) -> str:
    """``1,234.5`` with the marks of ``language``."""
    thousands, decimals = _MARKS.get(language, _MARKS[SOURCE])
    return number.translate({ord(","): thousands, ord("."): decimals})


@cache
def translations(language: str) -> std.NullTranslations:
    """The words of a language, all its PO files together."""
    files = sorted((FOLDER / language / "LC_MESSAGES").glob("*.po")) if language in CODES else []
    if not files:
        return std.NullTranslations()
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    merged = Catalog(locale=language)
    for file in files:
        with file.open("rb") as content:
            for message in read_po(content, locale=language):
                if message.id and message.string and not message.fuzzy:
                    merged[message.id] = message
    binary = io.BytesIO()
    write_mo(binary, merged)
    binary.seek(0)
    return std.GNUTranslations(binary)
