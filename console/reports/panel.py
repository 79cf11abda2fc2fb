"""The frame of a small picture: scales, grid and numbers. Reports and a console's pages draw their panels in it."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from wardround.console.i18n import marked, spoken
from wardround.console.reports.svg import Scale, dot, line, text, tick_text

WIDTH: Final = 240.0
LEFT: Final = 32.0
RIGHT: Final = 6.0
TOP: Final = 8.0


def frame(
    height: float, reach: tuple[float, float], across: tuple[float, float], below: Sequence[float]
) -> tuple[Scale, Scale, list[Markup]]:
    """Scales of a panel whose lowest text stands at ``height``, with its grid and tick labels.

    Args:
        reach, across: the values at the ends of the upright scale and of the level one.
        below: where the level scale has a number.
    """
    numbers = Scale(*reach, height - 30, TOP + 6).ticks(4)
    # Long numbers need more room than the digits of a share.
    left = max(LEFT, 8.0 + 6.0 * max((len(tick_text(tick)) for tick in numbers), default=0))
    x = Scale(*across, left, WIDTH - RIGHT)
    y = Scale(*reach, height - 30, TOP + 6)
    marks = []
    for tick in numbers:
        marks.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        marks.append(text(x.start - 5, y(tick) + 3.5, shown(tick), "tick", "end"))
    marks.append(line(x.start, y.start, x.end, y.start, "axis"))
    for tick in below:
        end = tick == below[-1] and len(below) > 1 and x(tick) > x.end - 8
        marks.append(text(x(tick), y.start + 14, shown(tick), "tick", "end" if end else "middle"))
    return x, y, marks


def of_probabilities(across: str, upright: str) -> tuple[Scale, Scale, list[Markup]]:
    """A square panel of 0 to 1 both ways, with its diagonal and what stands at its scales."""
    x, y, marks = frame(246, (0.0, 1.0), (0.0, 1.0), [0, 0.5, 1])
    marks.append(line(x(0), y(0), x(1), y(1), "reference"))
    marks.append(text((x.start + x.end) / 2, 244, across, "label", "middle"))
    marks.append(text(x.start, 8, upright, "label"))
    return x, y, marks


def estimate(x: float, y: Scale, value: float, low: float | None, high: float | None) -> list[Markup]:
    """A dot with its interval, where it has one: an upright line with ends."""
    marks = []
    if low is not None and high is not None:
        marks.append(line(x, y(low), x, y(high), "shared-line"))
        marks += [line(x - 4, y(end), x + 4, y(end), "shared-end") for end in (low, high)]
    return [*marks, dot(x, y(value), 4.0, "shared-dot")]


def shown(tick: float) -> str:
    """The number of a scale, with the reader's marks."""
    return marked(tick_text(tick), spoken())
