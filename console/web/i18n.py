"""Words in the reader's language, through gettext: English in the code, catalogues of PO files in ``locale``.

A language has one PO file for each page or subject, so that pages are translated apart; they are read when a language
is first used. The language of a request is the account's own, or the best of the browser's list. Dates and numbers
follow it, through Babel's locale data.
"""

import gettext as std
import io
import math
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from babel import Locale
from babel.dates import format_date, format_time, format_timedelta
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from wardround.conf.said import Said
from wardround.privacy.accounting import rounded_up

FOLDER: Final = Path(__file__).with_name("locale")
SOURCE: Final = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the console. ``draft``: nobody who speaks it has read the words yet, and the page says so."""

    code: str
    name: str
    draft: bool = False


LANGUAGES: Final = (
    Language("en", "English"),
    Language("fr", "Français"),
    Language("de", "Deutsch", draft=True),
    Language("vi", "Tiếng Việt", draft=True),
)
CODES: Final = tuple(language.code for language in LANGUAGES)

_now: ContextVar[str] = ContextVar("language", default=SOURCE)


def use(language: str) -> None:
    """Speak ``language`` for the rest of this request."""
    _now.set(language)


def spoken() -> str:
    """The language of this request."""
    return _now.get()


def negotiated(chosen: str | None, accepted: str) -> str:
    """The account's language, else the best of ``Accept-Language`` that is no draft, else English."""
    if chosen in CODES:
        return str(chosen)
    offered = {language.code for language in LANGUAGES if not language.draft}
    for code in _wanted(accepted[:500]):
        if (short := code.split("-")[0]) in offered:
            return short
    return SOURCE


def _(message: str) -> str:
    """``message`` in the language of this request."""
    return translations(spoken()).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The form that ``count`` needs, in the language of this request; it is not filled in yet."""
    return translations(spoken()).ngettext(one, many, count)


def N_(message: str) -> str:
    """Mark ``message`` for translation where it is only written down; ``_`` translates it when it is shown."""
    return message


def said_again(text: str) -> str:
    """A sentence that code outside of the console said, in the language of this request; another text as it is."""
    if not isinstance(text, Said):
        return _(text) if text else ""
    words, values = _(text.template), {name: _again(value) for name, value in text.values.items()}
    return words % values if values else words


def _again(value: str) -> str:
    return said_again(value) if isinstance(value, Said) else value


@cache
def translations(language: str) -> std.NullTranslations:
    """The words of a language, all its PO files together."""
    folder = FOLDER / language / "LC_MESSAGES"
    merged = Catalog(locale=language if language in CODES else SOURCE)
    for file in sorted(folder.glob("*.po")):
        with file.open("rb") as content:
            for message in read_po(content, locale=language):
                if message.id and message.string and not message.fuzzy:
                    merged[message.id] = message
    if not len(merged):
        return std.NullTranslations()
    binary = io.BytesIO()
    write_mo(binary, merged)
    binary.seek(0)
    return std.GNUTranslations(binary)


def moment(at: "str | float | datetime") -> str:
    """A time as the reader writes it, in UTC and saying so: from seconds since the epoch or ISO 8601."""
    when = _moment(at)
    return f"{format_date(when, 'medium', _locale())}, {format_time(when, 'short', tzinfo=UTC, locale=_locale())} UTC"


def iso(at: "str | float | datetime") -> str:
    """The same for a machine: ``2026-11-29T08:00:00Z``."""
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(at: "str | float | datetime", now: datetime) -> str:
    """``3 minutes ago``, in the reader's language."""
    return format_timedelta(_moment(at) - now, add_direction=True, locale=_locale())


def number(value: int | float) -> str:
    """A number with the reader's separators."""
    return format_decimal(value, locale=_locale())


def number_full(value: float) -> str:
    """A small number in full, ``0.0001``: a delta is never rounded to nothing."""
    return format_decimal(Decimal(repr(value)), decimal_quantization=False, locale=_locale())


def one_digit(value: float) -> str:
    """A number with one digit behind the mark, as ``meaning.in_a_hundred`` gives them."""
    return format_decimal(value, format="0.0", locale=_locale())


def epsilon_up(epsilon: float) -> str:
    """An epsilon, rounded up as everywhere, with the reader's decimal mark."""
    return format_decimal(Decimal(rounded_up(epsilon)), format="0.00", locale=_locale())


def size(bytes_: int) -> str:
    """A size in MB or GB of 2**20 and 2**30 bytes, with one digit behind the mark."""
    if bytes_ >= 2**30:
        return _("%(count)s GB") % {"count": one_digit(bytes_ / 2**30)}
    return _("%(count)s MB") % {"count": one_digit(bytes_ / 2**20)}


def percent_up(share: float) -> str:
    """A share in 0..1 as a whole percentage, rounded up."""
    return format_percent(Decimal(math.ceil(100 * Decimal(repr(share)))) / 100, locale=_locale())


def _moment(at: "str | float | datetime") -> datetime:
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    elif not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    return at.astimezone(UTC)


def _locale() -> Locale:
    code = spoken()
    return Locale(code) if code in CODES and code != SOURCE else Locale("en", "GB")


def _wanted(header: str) -> list[str]:
    """Language codes of an Accept-Language header, the best first."""
    found: list[tuple[float, str]] = []
    for part in header.split(","):
        code, _, quality = part.strip().lower().partition(";q=")
        try:
            found.append((float(quality) if quality else 1.0, code.strip()))
        except ValueError:
            continue
    return [code for weight, code in sorted(found, key=lambda pair: -pair[0]) if weight > 0]
