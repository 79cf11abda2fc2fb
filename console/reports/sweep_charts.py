"""The pictures of a comparison: a metric against epsilon, one line for each contender, bands for the intervals.

A contender has a colour, a mark and a dash of its own, so no line needs its colour to be told apart. Epsilon is drawn
on a logarithmic scale; runs without protection stand behind a gap at the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, log10
from typing import Final

from markupsafe import Markup

from wardround.console.reports.numbers import NOT_ESTIMABLE, decimal
from wardround.console.reports.svg import Point, Scale, around, line, nice_step, path, picture, tag, text, tick_text
from wardround.privacy.accounting import rounded_up
from wardround.simulations.sweep.comparison import Cell, Comparison, Interval

MOST_DRAWN: Final = 8
"""Contenders with a mark of their own."""

_APART: Final = 7.0
"""Between the marks of neighbours at one level, so that none hides another."""


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where a picture's values lie. ``at``: the middle of each level's marks."""

    y: Scale
    at: dict[float, float]
    marks: tuple[Markup, ...]


def frontier(key: str, words: str, comparison: Comparison, contenders: Sequence[str]) -> Markup:
    """The mean over hospitals against epsilon, 760 x 400, with bands and whiskers: 95 % over seeds."""
    reach = _reach([cell.over_hospitals for cell in comparison.cells if cell.contender in contenders])
    axes = _axes(comparison.levels, reach, (56.0, 748.0), (352.0, 14.0), 6)
    marks = [*axes.marks, text(402, 394, "ε that each run was to keep, at any hospital", "label", "middle")]
    said = []
    for number, contender in enumerate(contenders):
        cells = [cell for cell in comparison.cells if cell.contender == contender]
        values = [(cell.level, cell.over_hospitals) for cell in cells]
        marks += _line(axes, number, _shift(number, len(contenders)), values, band=True)
        said.append(f"{contender}: " + ", ".join(f"{_level(level)} {_said(found)}" for level, found in values))
    return picture(key, 760, 400, words, "; ".join(said), *marks, class_="frontier")


def of_site(
    key: str,
    words: str,
    site: str,
    comparison: Comparison,
    contenders: Sequence[str],
    reach: tuple[float, float],
) -> Markup:
    """One hospital's panel, 240 x 168: each contender's line, and its own model's level."""
    axes = _axes(comparison.levels, reach, (34.0, 234.0), (136.0, 12.0), 4)
    marks, said = list(axes.marks), []
    own = own_level(comparison, site)
    if own is not None:
        marks.append(line(34, axes.y(own), 234, axes.y(own), "own-level"))
        said.append(f"own model {decimal(own)}")
    for number, contender in enumerate(contenders):
        values = [
            (cell.level, found.used)
            for cell in comparison.cells
            if cell.contender == contender
            for found in cell.sites
            if found.site == site and found.used is not None
        ]
        marks += _line(axes, number, _shift(number, len(contenders)) * 0.4, values, band=False)
        said.append(f"{contender}: " + ", ".join(f"{_level(level)} {_said(found)}" for level, found in values))
    marks.append(text(134, 166, "ε", "label", "middle"))
    return picture(key, 240, 168, words, "; ".join(said) or NOT_ESTIMABLE, *marks, class_="panel")


def site_reach(comparison: Comparison, contenders: Sequence[str]) -> tuple[float, float]:
    """One vertical scale for the panels of all hospitals, own models included."""
    cells = [cell for cell in comparison.cells if cell.contender in contenders]
    values = [site.used for cell in cells for site in cell.sites if site.used is not None]
    own = [Interval(site.own, None, None, 1) for cell in cells for site in cell.sites if site.own is not None]
    return _reach([*values, *own])


def own_level(comparison: Comparison, site: str) -> float | None:
    """The mean of a hospital's own model over the runs with protection, or over all where none has it."""
    cells = [cell for cell in comparison.cells if isfinite(cell.level)] or list(comparison.cells)
    found = [part.own for cell in cells for part in cell.sites if part.site == site and part.own is not None]
    return sum(found) / len(found) if found else None


def contender_swatch(number: int) -> Markup:
    """A legend's sample; decoration, so it has no name."""
    shapes = [path([(1, 8), (31, 8)], f"c-line c{number}"), _mark(number, 16, 8, 4.6)]
    return tag("svg", *shapes, viewBox="0 0 32 16", width=32, height=16, class_="swatch", aria_hidden="true")


def _axes(
    levels: Sequence[float], reach: tuple[float, float], x: tuple[float, float], y: tuple[float, float], ticks: int
) -> _Axes:
    vertical = Scale(*reach, *y)
    finite = [level for level in levels if isfinite(level)]
    unprotected = inf in levels
    room = (x[1] - x[0]) * (0.16 if unprotected and finite else 0.0)
    inner = (x[0] + 0.07 * (x[1] - x[0]), x[1] - room - 0.05 * (x[1] - x[0]))
    at: dict[float, float] = {}
    if finite:
        logs = [log10(level) for level in finite]
        scale = Scale(min(logs), max(logs), *inner)
        at = {level: scale(log10(level)) if len(finite) > 1 else sum(inner) / 2 for level in finite}
    if unprotected:
        at[inf] = x[1] - room / 2 if finite else sum(x) / 2
    marks = []
    for tick in vertical.ticks(ticks):
        marks.append(line(x[0], vertical(tick), x[1], vertical(tick), "grid"))
        marks.append(text(x[0] - 6, vertical(tick) + 3.5, tick_text(tick), "tick", "end"))
    if unprotected and finite:
        marks.append(line(x[1] - room, y[0], x[1] - room, y[1], "reference"))
    marks.append(line(x[0], y[0], x[1], y[0], "axis"))
    marks += [text(place, y[0] + 16, _level_short(level), "tick", "middle") for level, place in at.items()]
    return _Axes(vertical, at, tuple(marks))


def _line(
    axes: _Axes, number: int, shift: float, values: Sequence[tuple[float, Interval]], *, band: bool
) -> list[Markup]:
    """A contender's band, line, whiskers and marks; the line does not cross to the runs without protection."""
    marks: list[Markup] = []
    points = [(axes.at[level] + shift, axes.y(found.value)) for level, found in values if isfinite(level)]
    edges = [
        (axes.at[level] + shift, axes.y(found.low), axes.y(found.high))
        for level, found in values
        if isfinite(level) and found.low is not None and found.high is not None
    ]
    if band and len(edges) > 1:
        around_it: list[Point] = [(px, low) for px, low, _ in edges] + [(px, high) for px, _, high in reversed(edges)]
        marks.append(
            tag("polygon", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in around_it), class_=f"band c{number}")
        )
    if len(points) > 1:
        marks.append(path(points, f"c-line c{number}"))
    for level, found in values:
        px = axes.at[level] + shift
        if found.low is not None and found.high is not None:
            marks.append(line(px, axes.y(found.low), px, axes.y(found.high), f"whisker c{number}"))
        marks.append(_mark(number, px, axes.y(found.value), 4.6 if band else 3.2))
    return marks


def _mark(number: int, x: float, y: float, size: float) -> Markup:
    """Circle, square, triangle, diamond: filled for the first four contenders, hollow for the next."""
    kind = f"{'mark' if number < 4 else 'hollow'} c{number}"
    if number % 4 == 0:
        return tag("circle", cx=x, cy=y, r=size, class_=kind)
    a, b = size * 1.25, size * 0.9
    corners = {
        1: [(-b, -b), (b, -b), (b, b), (-b, b)],
        2: [(0, -a), (a, b), (-a, b)],
        3: [(0, -a), (a, 0), (0, a), (-a, 0)],
    }[number % 4]
    return tag("polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), class_=kind)


def _reach(found: Sequence[Interval]) -> tuple[float, float]:
    ends = [end for item in found for end in (item.value, item.low, item.high) if end is not None]
    if not ends:
        return 0.0, 1.0
    return around(ends, nice_step((max(ends) - min(ends)) / 5 or 0.01))


def _shift(number: int, count: int) -> float:
    return (number - (count - 1) / 2) * _APART


def _level(level: float) -> str:
    return f"ε {level:g}" if isfinite(level) else "without protection"


def _level_short(level: float) -> str:
    return f"{level:g}" if isfinite(level) else "none"


def _said(found: Interval) -> str:
    if found.low is None or found.high is None:
        return decimal(found.value)
    return f"{decimal(found.value)} ({decimal(found.low)} to {decimal(found.high)})"


def true_epsilons(cells: Sequence[Cell], site: str) -> list[tuple[float, str]]:
    """(level, true epsilon) of a hospital over all contenders, the largest, rounded up; unprotected levels left out."""
    found: dict[float, float] = {}
    for cell in cells:
        for part in cell.sites:
            if part.site == site and isfinite(part.epsilon):
                found[cell.level] = max(found.get(cell.level, 0.0), part.epsilon)
    return [(level, rounded_up(value)) for level, value in sorted(found.items())]
