"""The series of a campaign of indicators as one HTML file: plots with intervals, gaps and alarms, no script.

Nothing is told by colour alone: gaps are written out, figures of fewer hospitals are hollow, and alarms have a sign.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup

from wardround.console.reports.html import page
from wardround.console.reports.numbers import rough
from wardround.console.reports.svg import Scale, around, dot, line, nice_step, path, picture, tag, text, tick_text
from wardround.console.series_table import alarm_lines, promises, task_of, when
from wardround.protocol.indicators import Indicator, Level
from wardround.protocol.plan import StudyPlan
from wardround.strategies.cusum import Raised
from wardround.strategies.series import Expected, Figure, expected, of, unit_of

_WIDTH: Final = 960.0
_HEIGHT: Final = 250.0
_LEFT: Final = 58.0
_RIGHT: Final = 12.0
_TOP: Final = 24.0
_BOTTOM: Final = 28.0
_DOTS: Final = 200
"""Ticks up to which every figure has a dot."""

_LISTED: Final = 14
"""Ticks of the table below a plot: the last ones."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One indicator on the page."""

    indicator: Indicator
    about: str
    chart: Markup
    rows: tuple[tuple[str, str, str, str, str], ...]
    expected: str
    gaps: int


def render(plan: StudyPlan, figures: Sequence[Figure], raised: Sequence[Raised]) -> str:
    """The page for the figures of ``plan``, as one string of HTML."""
    task = task_of(plan)
    plots = [
        _plot(plan, indicator, of(figures, indicator), [a for a in raised if a.indicator == indicator.name], error)
        for indicator, error in zip(task.indicators, expected(plan), strict=True)
    ]
    last = max((figure.tick for figure in figures), default=0)
    return page(
        "series.html.j2",
        plan=plan,
        task=task,
        plots=plots,
        last=last,
        until=f"{task.begins(last + 1):%Y-%m-%d %H:%M}",
        promises=promises(plan),
        alarms=alarm_lines(task, raised),
        legend=_LEGEND,
    )


def _plot(
    plan: StudyPlan, indicator: Indicator, series: Sequence[Figure], raised: Sequence[Raised], error: Expected
) -> Plot:
    unit, task = unit_of(indicator), task_of(plan)
    span = {"15min": "15 minutes", "hour": "hour", "day": "day"}[task.tick]
    about = f"at the end of each {span}" if isinstance(indicator, Level) else f"in each {span}"
    rows = tuple(
        (
            when(figure),
            "none" if figure.value is None else f"{rough(figure.value)} {unit}".rstrip(),
            "" if figure.low is None or figure.high is None else f"{rough(figure.low)} to {rough(figure.high)}",
            f"{figure.hospitals} of {len(plan.participants)}",
            figure.note,
        )
        for figure in series[-_LISTED:]
    )
    widths = [f"{rough(width)} {unit}".rstrip() for width in (error.usual, error.worst)]
    said = f"± {widths[0]}" if widths[0] == widths[1] else f"usually ± {widths[0]}, at worst ± {widths[1]}"
    gaps = sum(figure.value is None for figure in series)
    return Plot(indicator, about, _chart(indicator, series, raised), rows, said, gaps)


def _chart(indicator: Indicator, series: Sequence[Figure], raised: Sequence[Raised]) -> Markup:
    ends = [end for figure in series if figure.value is not None for end in (figure.low or 0.0, figure.high or 0.0)]
    step = nice_step((max(ends, default=1.0) - min(ends, default=0.0)) / 4)
    low, high = around(ends, step)
    x = Scale(0.5, len(series) + 0.5, _LEFT, _WIDTH - _RIGHT)
    y = Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts: list[Markup] = []
    for value in y.ticks(5):
        parts += [line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "grid")]
        parts += [text(_LEFT - 8, y(value) + 3.5, _tick(value), "tick", "end")]
    every = max(1, round(nice_step(len(series) / 8)))
    for figure in series[::every]:
        parts.append(line(x(figure.tick), _HEIGHT - _BOTTOM, x(figure.tick), _HEIGHT - _BOTTOM + 4, "axis"))
        parts.append(text(x(figure.tick), _HEIGHT - 8, f"{figure.begins:%d %b}", "tick", "middle"))
    for gap, run in groupby(series, lambda figure: figure.value is None):
        found = list(run)
        parts += _gap(found, x) if gap else _run(found, x, y)
    for alarm in raised:
        at = x(alarm.tick)
        parts.append(line(at, _TOP, at, _HEIGHT - _BOTTOM, "limit-line"))
        parts.append(text(at, _TOP - 8, "▲" if alarm.direction == "above" else "▼", "label", "middle"))
    unit = unit_of(indicator)
    about = f"{indicator.name}{f' in {unit}' if unit else ''}: {len(series)} ticks, each with its interval."
    return picture(f"plot-{indicator.name}", _WIDTH, _HEIGHT, indicator.name, about, *parts, class_="series c0")


def _tick(value: float) -> str:
    return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 1000 else tick_text(value)


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


def _gap(found: Sequence[Figure], x: Scale) -> Iterator[Markup]:
    """Ticks without a figure: a field that says so."""
    left, right = x(found[0].tick - 0.5), x(found[-1].tick + 0.5)
    yield tag("rect", x=left, y=_TOP, width=max(1.0, right - left), height=_HEIGHT - _BOTTOM - _TOP, class_="void-band")
    if right - left > 30:
        yield text((left + right) / 2, _TOP + 14, "no figure", "label", "middle")


_LEGEND: Final = (
    ("●", "a figure of every hospital, with the band of its interval"),
    ("○", "of fewer hospitals, or with what came in while one was away: not to be compared with others"),
    ("▒", "no figure: too few hospitals, or a level while one is away; nothing is filled in"),
    ("▲ ▼", "an alarm: above or below what is usual"),
)
