"""An alarm on a noised series: the two-sided tabular CUSUM (Page 1954; Montgomery, Statistical Quality Control, 9.1).

The first ``baseline`` figures after ``settling`` ticks say what is usual: their mean mu and standard deviation s, which
holds the noise of the privacy mechanism and the ups and downs of the hospital alike, because both are in the series.
Then with z_t = (x_t - mu) / s the sums H = max(0, H + z_t - k) and L = max(0, L - z_t - k) grow where the series has
moved by more than k standard deviations; one above h is an alarm. It stands, and is not raised again, until that sum
is back at 0; above h a sum does not grow, so that it comes back.

*Weekly*: mu is that of the same place in the week (weekday and time of day, UTC) and s that of what is left, with as
many degrees of freedom less as there are places; z_t is divided by sqrt(1 + 1/n), n figures having made its mu, so that
it varies by 1 again. A place of which the baseline has no figure is passed over.

It reads what is published and nothing else, so it costs nothing. Figures that are not comparable (a hospital away, or
back with what came in meanwhile) are passed over: the sums stay. With k = 0.5 and h = 5 a series in which nothing
happens has a false alarm about once in 465 figures, were mu and s exact; a baseline of few figures makes it more often.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import time
from math import sqrt
from typing import Final, Literal, TypeAlias

from wardround.protocol.indicators import Alarm
from wardround.strategies.series import Figure

Direction: TypeAlias = Literal["above", "below"]
Place: TypeAlias = tuple[int, time] | None
"""Weekday and time of day; None where all figures are alike."""

_SIGNS: Final[dict[Direction, float]] = {"above": 1.0, "below": -1.0}


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm: the indicator has been ``direction`` of what is usual, which is ``usual`` in its unit.

    ``usual`` is of the same place in the week where the rule is weekly. ``until``: the tick by which it was over; None:
    it stands.
    """

    indicator: str
    tick: int
    direction: Direction
    usual: float
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Usual:
    """What the baseline says: (mean, figures that it is of) of each place, and the standard deviation around them."""

    means: Mapping[Place, tuple[float, int]]
    deviation: float
    weekly: bool

    def standardised(self, figure: Figure, value: float) -> float | None:
        """z of ``value``; None where the baseline has no figure of its place."""
        if (found := self.means.get(_place(figure, self.weekly))) is None:
            return None
        mean, count = found
        return (value - mean) / self.deviation / (sqrt(1 + 1 / count) if self.weekly else 1.0)


def alarms(series: Sequence[Figure], rule: Alarm) -> list[Raised]:
    """The alarms of one indicator's series, in the order of time."""
    known = _known(series, rule)
    usual = _usual(known[: rule.baseline], rule)
    if usual is None:
        return []
    found, sums, standing = list[Raised](), dict.fromkeys(_SIGNS, 0.0), dict[Direction, int]()
    for figure, value in known[rule.baseline :]:
        z = usual.standardised(figure, value)
        if z is None:
            continue
        for direction, sign in _SIGNS.items():
            moved = sums[direction] + sign * z - rule.drift
            sums[direction] = min(max(0.0, moved), rule.threshold)
            if moved > rule.threshold and direction not in standing:
                standing[direction] = len(found)
                mean, _ = usual.means[_place(figure, rule.weekly)]
                found.append(Raised(figure.indicator, figure.tick, direction, mean))
            elif moved <= 0 and direction in standing:
                over = standing.pop(direction)
                found[over] = replace(found[over], until=figure.tick)
    return found


def _known(series: Sequence[Figure], rule: Alarm) -> list[tuple[Figure, float]]:
    """The figures that may be compared, after those that are passed over at the start."""
    settled = (figure for figure in series if figure.tick > rule.settling)
    return [(figure, figure.value) for figure in settled if figure.comparable and figure.value is not None]


def _usual(first: Sequence[tuple[Figure, float]], rule: Alarm) -> Usual | None:
    """None: too few figures, or none that differ."""
    places: defaultdict[Place, list[float]] = defaultdict(list)
    for figure, value in first:
        places[_place(figure, rule.weekly)].append(value)
    free = len(first) - len(places)
    if len(first) < rule.baseline or free < 1:
        return None
    means = {place: (sum(values) / len(values), len(values)) for place, values in places.items()}
    squares = sum((value - means[place][0]) ** 2 for place, values in places.items() for value in values)
    return Usual(means, sqrt(squares / free), rule.weekly) if squares else None


def _place(figure: Figure, weekly: bool) -> Place:
    return (figure.begins.weekday(), figure.begins.time()) if weekly else None
