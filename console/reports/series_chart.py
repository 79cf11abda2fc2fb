"""The plot of one indicator: its figures with intervals, gaps and alarms as SVG, in the reader's language.

Nothing is told by colour alone: gaps are written out, figures of fewer hospitals are hollow, and alarms have a sign.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup

from wardround.console.i18n import _, marked, ngettext, numeral, spoken
from wardround.console.reports.svg import Scale, around, dot, line, nice_step, path, picture, tag, text, tick_text
from wardround.protocol.indicators import Indicator
from wardround.strategies.cusum import Raised
from wardround.strategies.series import Figure, unit_of

_RIGHT: Final = 12.0
_TOP: Final = 24.0
_BOTTOM: Final = 28.0
_HALF: Final = 30.0
"""Half of what is written below a plot or over a gap, in pixels."""

_DOTS: Final = 200
"""Ticks up to which every figure has a dot."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a plot in pixels; ``left``: room for the numbers, ``labels``: times below it at most, ``name``: in its id."""

    name: str
    width: float
    height: float
    left: float
    labels: int


WIDE: Final = Size("plot", 960.0, 250.0, 58.0, 8)
NARROW: Final = Size("narrow", 340.0, 220.0, 48.0, 2)


def chart(indicator: Indicator, series: Sequence[Figure], raised: Sequence[Raised], size: Size = WIDE) -> Markup:
    """The picture of ``series``, which is not empty and of neighbouring ticks."""
    ends = [end for figure in series if figure.value is not None for end in (figure.low or 0.0, figure.high or 0.0)]
    step = nice_step((max(ends, default=1.0) - min(ends, default=0.0)) / 4)
    low, high = around(ends, step)
    right, bottom = size.width - _RIGHT, size.height - _BOTTOM
    x = Scale(series[0].tick - 0.5, series[-1].tick + 0.5, size.left, right)
    y = Scale(low, high, bottom, _TOP)
    parts: list[Markup] = []
    for value in y.ticks(5):
        parts += [line(size.left, y(value), right, y(value), "grid")]
        parts += [text(size.left - 8, y(value) + 3.5, _tick(value), "tick", "end")]
    parts += _times(series, x, bottom, size)
    for gap, run in groupby(series, lambda figure: figure.value is None):
        found = list(run)
        parts += _gap(found, x, bottom) if gap else _run(found, x, y)
    for alarm in raised:
        if series[0].tick <= alarm.tick <= series[-1].tick:
            at = x(alarm.tick)
            parts.append(line(at, _TOP, at, bottom, "limit-line"))
            parts.append(text(at, _TOP - 8, "▲" if alarm.direction == "above" else "▼", "label", "middle"))
    unit = unit_of(indicator)
    named = f"{indicator.name} ({unit})" if unit else indicator.name
    words = ngettext("%(count)s tick, with its interval.", "%(count)s ticks, each with its interval.", len(series))
    about = f"{named}: {words % {'count': numeral(len(series))}}"
    key = f"{size.name}-{indicator.name}"
    return picture(key, size.width, size.height, indicator.name, about, *parts, class_="series c0")


def _times(series: Sequence[Figure], x: Scale, bottom: float, size: Size) -> Iterator[Markup]:
    """When some of the ticks begin: the day, and where they are many a day the time of day with it."""
    every = max(1, round(nice_step(len(series) / size.labels)))
    daily = all(figure.begins.time() == series[0].begins.time() for figure in series)
    for figure in series[::every]:
        at = x(figure.tick)
        yield line(at, bottom, at, bottom + 4, "axis")
        anchor = "start" if at < x.start + _HALF else "end" if at > x.end - _HALF else "middle"
        yield text(at, size.height - 8, f"{figure.begins:{'%Y-%m-%d' if daily else '%m-%d %H:%M'}}", "tick", anchor)


def _tick(value: float) -> str:
    shown = f"{value:,.0f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 1000 else tick_text(value)
    return marked(shown, spoken())


def _run(found: Sequence[Figure], x: Scale, y: Scale) -> Iterator[Markup]:
    """Neighbouring figures: the band of their intervals, a line through them, hollow dots where hospitals are few."""
    upper = [(x(figure.tick), y(figure.high or 0.0)) for figure in found]
    lower = [(x(figure.tick), y(figure.low or 0.0)) for figure in reversed(found)]
    if len(found) == 1:
        yield line(*upper[0], *lower[0], "whisker")
    yield path([*upper, *lower, upper[0]], "band")
    yield path([(x(figure.tick), y(figure.value or 0.0)) for figure in found], "c-line c0")
    for figure in found:
        if not figure.comparable or len(found) < _DOTS:
            kind = "mark" if figure.comparable else "hollow"
            yield dot(x(figure.tick), y(figure.value or 0.0), 2.6 if figure.comparable else 3.6, kind)


def _gap(found: Sequence[Figure], x: Scale, bottom: float) -> Iterator[Markup]:
    """Ticks without a figure: a field that says so."""
    left, right = x(found[0].tick - 0.5), x(found[-1].tick + 0.5)
    yield tag("rect", x=left, y=_TOP, width=max(1.0, right - left), height=bottom - _TOP, class_="void-band")
    if right - left > 2 * _HALF:
        yield text((left + right) / 2, _TOP + 14, _("no figure"), "label", "middle")
