"""The picture of the cost planner: epsilon against rounds, with the caps that hold for ever, as SVG for the page.

Plan and question are told apart by shape: the plan's point is hollow, the one asked for is full; the curve against
those who may collude is dashed. The page shows the same figures as a table.
"""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from wardround.console.reports.svg import Scale, dot, line, path, picture, text
from wardround.console.web.i18n import _, epsilon_up, number
from wardround.console.web.queries.costs import Cost, Point
from wardround.console.web.queries.studies import Room

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360.0, 230.0, 30.0, 8.0, 12.0, 34.0
HEADROOM: Final = 1.08
MOST_TIMES: Final = 2.0
"""The picture ends at so many times the largest of caps and points: what lies above has no use."""


def cost_picture(points: Sequence[Point], proposed: Cost, asked: Cost, rooms: Sequence[Room]) -> Markup:
    """Epsilon of the asked noise after each number of rounds, the caps at the same delta, and both points."""
    delta = asked.figures[0].delta
    caps = sorted({room.cap for room in rooms if room.delta == delta})
    marked = [one.epsilon for cost in (proposed, asked) for one in cost.figures if one.epsilon is not None]
    curve = [value for point in points for value in (point.everyone, point.consortium) if value is not None]
    most = min(max([*curve, *marked]), MOST_TIMES * max([*caps, *marked], default=1.0))
    x = Scale(0.0, float(points[-1].rounds), LEFT, WIDTH - RIGHT)
    y = Scale(0.0, HEADROOM * max([most, *caps, *marked]), HEIGHT - BOTTOM, TOP)
    marks = _axes(x, y)
    marks.append(path([(x(0), y(0)), *((x(one.rounds), y(one.everyone)) for one in points)], "curve"))
    if points[-1].consortium is not None:
        second = [(x(one.rounds), y(one.consortium)) for one in points if one.consortium is not None]
        marks.append(path([(x(0), y(0)), *second], "curve second"))
    for cap in caps:
        marks.append(line(x.start, y(cap), x.end, y(cap), "cap"))
        marks.append(text(x.start + 4, y(cap) - 4, _("cap for ever %(cap)s") % {"cap": number(cap)}, "cap-label"))
    for cost, kind in ((proposed, "point hollow"), (asked, "point")):
        marks += [dot(x(cost.rounds), y(one.epsilon), 4.5, kind) for one in cost.figures if one.epsilon is not None]
    return picture("cost", WIDTH, HEIGHT, _("Epsilon against rounds"), _said(proposed, asked), *marks, class_="curves")


def _axes(x: Scale, y: Scale) -> list[Markup]:
    marks = []
    for tick in y.ticks(4):
        marks.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        marks.append(text(x.start - 5, y(tick) + 3.5, number(tick), "tick", "end"))
    for tick in x.ticks(4):
        if tick == int(tick):
            anchor = "end" if x(tick) > x.end - 8 else "middle"
            marks.append(text(x(tick), y.start + 14, number(int(tick)), "tick", anchor))
    marks.append(line(x.start, y.start, x.end, y.start, "axis"))
    marks.append(text((x.start + x.end) / 2, HEIGHT - 5, _("rounds"), "tick", "middle"))
    marks.append(text(2, 9, "ε", "tick"))
    return marks


def _said(proposed: Cost, asked: Cost) -> str:
    """The picture in words, for those who do not see it."""
    return "; ".join(
        words
        % {
            "rounds": number(cost.rounds),
            "epsilon": " / ".join(epsilon_up(one.epsilon) for one in cost.figures if one.epsilon is not None),
        }
        for words, cost in (
            (_("the plan: %(rounds)s rounds, epsilon %(epsilon)s"), proposed),
            (_("your figures: %(rounds)s rounds, epsilon %(epsilon)s"), asked),
        )
    )
