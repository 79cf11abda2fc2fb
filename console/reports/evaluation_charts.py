"""The evaluation of a model while it was trained, as pictures: each figure of all test patients over the rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from wardround.console.reports.charts import WIDTH
from wardround.console.reports.numbers import NOT_ESTIMABLE, decimal
from wardround.console.reports.svg import Scale, around, dot, line, nice_step, picture, text, tick_text
from wardround.simulations.result import EvaluationResult, FigureResult

_HEIGHT: Final = 152.0
_LEFT: Final = 40.0
_BOTTOM: Final = 116.0
_TOP: Final = 10.0

_WHOLE: Final = ("AUROC", "AUPRC", "mean Dice of ", "pooled Dice of ")
"""What is shown from 0 to 1; the ends of another picture are those of its intervals."""

_CURVE: Final = ("observed at ", "predicted at ")
"""The calibration curve has pictures of its own elsewhere, and too many figures for these."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure over the rounds."""

    name: str
    chart: Markup


def plots(found: EvaluationResult) -> list[Plot]:
    """Of all test patients together, one for each figure but those of the calibration curve."""
    series: dict[str, list[tuple[int, FigureResult | None]]] = {}
    for look in found.rounds:
        together = [figure for figure in look.figures if set(figure.group) <= {"all"}]
        for figure in together:
            if not figure.quantity.startswith(_CURVE):
                series.setdefault(figure.quantity, []).append((look.after_round, figure))
    return [
        Plot(name, _chart(f"evaluated-{number}", name, points, [look.after_round for look in found.rounds]))
        for number, (name, points) in enumerate(series.items(), 1)
    ]


def _chart(key: str, name: str, points: Sequence[tuple[int, FigureResult | None]], rounds: Sequence[int]) -> Markup:
    """Dots with their intervals, at the same distance for each round of the schedule; a round that is void is empty."""
    there = {after: figure for after, figure in points if figure is not None and figure.value is not None}
    ends = [end for f in there.values() for end in (f.value, f.low, f.high) if end is not None]
    low, high = (
        (0.0, 1.0) if name.startswith(_WHOLE) or not ends else around(ends, nice_step((max(ends) - min(ends)) / 3))
    )
    x, y = Scale(0.5, len(rounds) + 0.5, _LEFT, WIDTH - 6.0), Scale(low, high, _BOTTOM, _TOP)
    marks = [line(_LEFT, y(tick), WIDTH - 6.0, y(tick), "grid") for tick in y.ticks(4)]
    marks += [text(_LEFT - 6, y(tick) + 3.5, tick_text(tick), "tick", "end") for tick in y.ticks(4)]
    every = max(1, -(-len(rounds) // 8))
    for place, after in enumerate(rounds, 1):
        if place % every == 0 or len(rounds) <= 8:
            marks.append(text(x(place), _BOTTOM + 15, f"{after}", "tick", "middle"))
        if (figure := there.get(after)) is None:
            marks.append(text(x(place), _BOTTOM - 6, "none", "label", "middle"))
            continue
        if figure.low is not None and figure.high is not None:
            marks.append(line(x(place), y(figure.low), x(place), y(figure.high), "shared-line"))
            marks += [
                line(x(place) - 4, y(end), x(place) + 4, y(end), "shared-end") for end in (figure.low, figure.high)
            ]
        marks.append(dot(x(place), y(figure.value or 0.0), 4.0, "shared-dot"))
    marks.append(text((_LEFT + WIDTH) / 2, _HEIGHT - 4, "after round", "label", "middle"))
    said = "; ".join(f"after round {after}: {_said(figure)}" for after, figure in there.items())
    return picture(key, WIDTH, _HEIGHT, name, said or NOT_ESTIMABLE, *marks, class_="panel")


def _said(figure: FigureResult) -> str:
    value = decimal(figure.value or 0.0)
    if figure.low is None or figure.high is None:
        return value
    return f"{value}, interval {decimal(figure.low)} to {decimal(figure.high)}"
