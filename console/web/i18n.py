"""The language of a request, and its dates and numbers, through Babel's locale data.

The language is the account's own, or the best of the browser's list. The words themselves are in ``console.i18n``,
which the command line shares; pages take both from here.
"""

import math
from datetime import UTC, date, datetime
from decimal import Decimal

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time, format_timedelta
from babel.numbers import format_decimal, format_percent

from wardround.conf.said import Said
from wardround.console.i18n import CODES, LANGUAGES, N_, SOURCE, _, ngettext, numeral, spoken, use
from wardround.console.web.given import given
from wardround.privacy.accounting import rounded_up

__all__ = [
    "CODES",
    "LANGUAGES",
    "N_",
    "SOURCE",
    "_",
    "ago",
    "epsilon_up",
    "iso",
    "moment",
    "negotiated",
    "ngettext",
    "number",
    "number_full",
    "numeral",
    "one_digit",
    "percent_up",
    "said_again",
    "spoken",
    "use",
]


def negotiated(chosen: str | None, accepted: str) -> str:
    """The account's language, else the best of ``Accept-Language`` that is no draft, else English."""
    if chosen in CODES:
        return str(chosen)
    offered = {language.code for language in LANGUAGES if not language.draft}
    for code in _wanted(accepted[:500]):
        if (short := code.split("-")[0]) in offered:
            return short
    return SOURCE


def said_again(text: str) -> str:
    """A sentence that code outside of the console said, in the language of this request; another text as it is."""
    if not isinstance(text, Said):
        return _(text) if text else ""
    words, values = _(text.template), {name: _again(value) for name, value in text.values.items()}
    return words % values if values else words


def _again(value: str) -> str:
    return said_again(value) if isinstance(value, Said) else given(value)


def moment(at: "str | float | datetime") -> str:
    """A time as the reader writes it, in UTC and saying so: from seconds since the epoch or ISO 8601."""
    when = _moment(at)
    return f"{format_date(when, 'medium', _locale())}, {format_time(when, 'short', tzinfo=UTC, locale=_locale())} UTC"


def day(at: str) -> str:
    """A day as the reader writes it, from ISO 8601."""
    return format_date(date.fromisoformat(at), "medium", _locale())


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


def percent_tenth_up(part: int, whole: int) -> str:
    """``part`` of ``whole`` as a percentage with one digit behind the mark, never less than it is."""
    tenths = Decimal(-(-1000 * part // whole)) / 1000
    pattern = _locale().percent_formats[None].pattern.replace("#,##0", "#,##0.0")
    return format_percent(tenths, format=pattern, locale=_locale())


def percent(share: Decimal) -> str:
    """A share as a percentage, with every digit that it has."""
    return format_percent(share, locale=_locale(), decimal_quantization=False)


def span(first: date, step: str) -> str:
    """A day, week, month or year that begins at ``first``, as the reader writes it."""
    if step == "year":
        return str(first.year)
    if step == "month":
        return format_skeleton("yMMM", datetime(first.year, first.month, 1), locale=_locale())
    return format_date(first, "medium", _locale())


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
