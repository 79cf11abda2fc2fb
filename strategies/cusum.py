"""An alarm on a noised series: the two-sided tabular CUSUM (Page 1954; Montgomery, Statistical Quality Control, 9.1).

The first ``baseline`` figures after ``settling`` ticks say what is usual: their mean mu and standard deviation s, which
holds the noise of the privacy mechanism and the ups and downs of the hospital alike, because both are in the series.
Then with z_t = (x_t - mu) / s the sums H = max(0, H + z_t - k) and L = max(0, L - z_t - k) grow where the series has
moved by more than k standard deviations; one above h is an alarm. It stands, and is not raised again, until that sum
is back at 0; above h a sum does not grow, so that it comes back.

It reads what is published and nothing else, so it costs nothing. Figures that are not comparable (a hospital away, or
back with what came in meanwhile) are passed over: the sums stay. With k = 0.5 and h = 5 a series in which nothing
happens has a false alarm about once in 465 figures, were mu and s exact; a baseline of few figures makes it more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal, TypeAlias

from wardround.protocol.indicators import Alarm
from wardround.strategies.series import Figure

Direction: TypeAlias = Literal["above", "below"]

_SIGNS: Final[dict[Direction, float]] = {"above": 1.0, "below": -1.0}


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm: the indicator has been ``direction`` of what is usual, ``usual`` in its unit."""

    indicator: str
    tick: int
    direction: Direction
    usual: float


def alarms(series: Sequence[Figure], rule: Alarm) -> list[Raised]:
    """The alarms of one indicator's series, in the order of time."""
    later = [figure for figure in series if figure.tick > rule.settling]
    known = [(figure, figure.value) for figure in later if figure.comparable and figure.value is not None]
    first, rest = known[: rule.baseline], known[rule.baseline :]
    if not rest:
        return []
    mean = sum(value for _, value in first) / len(first)
    deviation = sqrt(sum((value - mean) ** 2 for _, value in first) / (len(first) - 1))
    if not deviation:
        return []
    found, sums, standing = list[Raised](), dict.fromkeys(_SIGNS, 0.0), dict.fromkeys(_SIGNS, False)
    for figure, value in rest:
        for direction, sign in _SIGNS.items():
            moved = sums[direction] + sign * (value - mean) / deviation - rule.drift
            if moved > rule.threshold and not standing[direction]:
                found.append(Raised(figure.indicator, figure.tick, direction, mean))
            sums[direction] = min(max(0.0, moved), rule.threshold)
            standing[direction] = moved > 0 and (standing[direction] or moved > rule.threshold)
    return found
