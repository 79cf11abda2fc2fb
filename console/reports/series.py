"""The series of a campaign of indicators as one HTML file: plots with intervals, gaps and alarms, no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from wardround.console.reports.html import page
from wardround.console.reports.numbers import rough
from wardround.console.reports.series_chart import chart
from wardround.console.series_table import alarm_lines, promises, task_of, when
from wardround.protocol.indicators import Indicator, Level
from wardround.protocol.plan import StudyPlan
from wardround.strategies.cusum import Raised
from wardround.strategies.series import Expected, Figure, expected, of, unit_of

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
    return Plot(indicator, about, chart(indicator, series, raised) if series else Markup(), rows, said, gaps)


_LEGEND: Final = (
    ("●", "a figure of every hospital, with the band of its interval"),
    ("○", "of fewer hospitals, or with what came in while one was away: not to be compared with others"),
    ("▒", "no figure: too few hospitals, or a level while one is away; nothing is filled in"),
    ("▲ ▼", "an alarm: above or below what is usual"),
)
