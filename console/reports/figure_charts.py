"""The figures of statistics and evaluations as small pictures, in the reader's language, each with its interval.

A figure that is not shown has no place in any picture: what stands for it says so, and holds none of its numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from markupsafe import Markup

from wardround.console.i18n import _
from wardround.console.reports.numbers import four_digits
from wardround.console.reports.panel import WIDTH, estimate, frame, of_probabilities, shown
from wardround.console.reports.svg import Point, Scale, around, line, nice_step, path, picture, tag, text

OF_A_CURVE: Final = ("observed at ", "predicted at ")
"""How the names of the calibration curve's figures begin: they have a picture of their own."""

_SHARES: Final = ("AUROC", "AUPRC", "mean Dice of ", "pooled Dice of ")
"""What is drawn on the whole of 0 to 1; the other ends of a picture are those of its intervals."""

_MOST_LABELS: Final = 8


class Shown(Protocol):
    """A figure of a result; ``value`` None: it is not shown, and neither are its other numbers."""

    @property
    def group(self) -> tuple[str, ...]: ...
    @property
    def quantity(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Ends:
    """The numbers of a figure that is shown."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, figure: Shown | None) -> "Ends | None":
        if figure is None or figure.value is None:
            return None
        return cls(figure.value, figure.low, figure.high)

    @property
    def all(self) -> list[float]:
        return [self.value, *(end for end in (self.low, self.high) if end is not None)]

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return four_digits(self.value)
        places = {"value": four_digits(self.value), "low": four_digits(self.low), "high": four_digits(self.high)}
        return _("%(value)s, interval %(low)s to %(high)s") % places


def over_rounds(key: str, name: str, found: Sequence[tuple[int, Ends | None]], *, share: bool) -> Markup:
    """One figure after each round of a schedule, at the same distance; a round without it says so.

    Args:
        name: of the figure, for those who do not see it.
        found: (round of training, figure).
        share: it is drawn on the whole of 0 to 1.
    """
    ends = [end for _, figure in found if figure is not None for end in figure.all]
    reach = (0.0, 1.0) if share or not ends else _around(ends)
    x, y, marks = frame(148, reach, (0.5, len(found) + 0.5), [])
    places = [(x(place), None if figure is None else y(figure.value)) for place, (_, figure) in enumerate(found, 1)]
    for (left, before), (right, after_it) in pairwise(places):
        if before is not None and after_it is not None:
            marks.append(path([(left, before), (right, after_it)], "between"))
    every = max(1, -(-len(found) // _MOST_LABELS))
    for place, (after, figure) in enumerate(found, 1):
        if place % every == 0 or len(found) <= _MOST_LABELS:
            marks.append(text(x(place), y.start + 14, f"{after}", "tick", "middle"))
        marks += _none(x(place), y) if figure is None else estimate(x(place), y, figure.value, figure.low, figure.high)
    marks.append(text((x.start + x.end) / 2, 148, _("after round"), "label", "middle"))
    said = [
        _("after round %(round)s: %(figure)s") % {"round": after, "figure": _said(figure)} for after, figure in found
    ]
    return picture(key, WIDTH, 152, name, "; ".join(said), *marks, class_="panel")


def calibration(key: str, name: str, found: Sequence[tuple[Ends | None, Ends | None]]) -> Markup:
    """Of each bin the share with the outcome, with its interval, against the mean of what was predicted.

    Args:
        found: (predicted, observed) of each bin; a bin of which either is not shown is left out.
    """
    x, y, marks = of_probabilities(_("predicted probability"), _("observed share"))
    there = [(across, up) for across, up in found if across is not None and up is not None]
    for across, up in there:
        marks += estimate(x(across.value), y, up.value, up.low, up.high)
    said = [
        _("predicted %(predicted)s, observed %(observed)s") % {"predicted": four_digits(across.value), "observed": up}
        for across, up in there
    ]
    if len(there) < len(found):
        missing = _("%(count)s of %(all)s bins not shown") % {"count": len(found) - len(there), "all": len(found)}
        said.append(missing)
        marks.append(text((x.start + x.end) / 2, 259, missing, "label", "middle"))
    return picture(key, WIDTH, 264, name, "; ".join(said), *marks, class_="panel")


def histogram(key: str, name: str, cuts: Sequence[float], found: Sequence[tuple[str, Ends | None]]) -> Markup:
    """A bar with its interval for each of the cuts' intervals, all of one width: the first and the last are open.

    Args:
        found: (interval in words, figure) of each, one more than ``cuts``.
    """
    ends = [end for _, figure in found if figure is not None for end in figure.all]
    x, y, marks = frame(160, _around([0.0, *ends]), (0.0, float(len(found))), [])
    gap = min(3.0, 0.15 * (x(1) - x(0)))
    for place, (_name, figure) in enumerate(found):
        left, width = x(place) + gap, x(place + 1) - x(place) - 2 * gap
        if figure is None:
            marks.append(_field(left, width, y))
            continue
        top, foot = sorted((y(figure.value), y(0.0)))
        marks.append(tag("rect", x=left, y=top, width=width, height=max(foot - top, 0.5), class_="bar-of"))
        if figure.low is not None and figure.high is not None:
            middle = left + width / 2
            marks.append(line(middle, y(figure.low), middle, y(figure.high), "whisker"))
    every = max(1, -(-len(cuts) // _MOST_LABELS))
    for place, cut in enumerate(cuts, 1):
        if place % every == 0:
            marks.append(line(x(place), y.start, x(place), y.start + 4, "axis"))
            marks.append(text(x(place), y.start + 15, shown(cut), "tick", "middle"))
    said = "; ".join(f"{interval}: {_said(figure)}" for interval, figure in found)
    return picture(key, WIDTH, 152, name, said, *marks, class_="panel")


def survival(key: str, name: str, axis: str, unit: str, found: Sequence[tuple[float, Ends | None]]) -> Markup:
    """The share that lives on, as steps at the times of the grid, each with its interval; it begins at 1.

    Where a figure is not shown the steps end, and go on after it. ``axis``: what stands below.
    """
    last = found[-1][0]
    x, y, marks = frame(178, (0.0, 1.0), (0.0, last), [])
    for tick in Scale(0.0, last, 0.0, 1.0).ticks(4):
        end = tick == last or x(tick) > x.end - 8
        marks.append(text(x(tick), y.start + 14, shown(tick), "tick", "end" if end else "middle"))
    before: Point | None = (x(0.0), y(1.0))
    for time, figure in found:
        if figure is None:
            marks.append(_field(x(time) - 4, 8.0, y))
            before = None
            continue
        at = x(time), y(figure.value)
        if before is not None:
            marks.append(path([before, (at[0], before[1]), at], "shared-line"))
        marks += estimate(at[0], y, figure.value, figure.low, figure.high)
        before = at
    marks.append(text((x.start + x.end) / 2, 178, axis, "label", "middle"))
    said = "; ".join(f"{four_digits(time)} {unit}: {_said(figure)}" for time, figure in found)
    return picture(key, WIDTH, 182, name, said, *marks, class_="panel")


def is_share(quantity: str) -> bool:
    """Whether a figure of this name is drawn on the whole of 0 to 1."""
    return quantity.startswith(_SHARES)


def _around(ends: Sequence[float]) -> tuple[float, float]:
    return around(ends, nice_step((max(ends) - min(ends)) / 3 if max(ends) > min(ends) else abs(max(ends)) / 3))


def _field(left: float, width: float, y: Scale) -> Markup:
    """What stands where a figure is not shown."""
    return tag("rect", x=left, y=y.end, width=width, height=y.start - y.end, class_="void-band")


def _none(at: float, y: Scale) -> list[Markup]:
    return [_field(at - 7, 14.0, y), text(at, y.start - 6, _("none"), "label", "middle")]


def _said(figure: Ends | None) -> str:
    return _("not shown") if figure is None else str(figure)
