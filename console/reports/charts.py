"""The pictures of the report: intervals, curves over rounds, epsilon, who took part; ``curves`` has the others.

Each function makes one picture of one hospital, so any number of hospitals is a grid of small pictures with common
scales, and no picture needs a colour for each hospital. Own model: dashed and hollow. Shared model: solid and filled.
"""

from collections.abc import Sequence

from markupsafe import Markup

from wardround.console.reports.findings import Mark
from wardround.console.reports.numbers import NOT_ESTIMABLE, decimal, interval
from wardround.console.reports.panel import TOP, WIDTH, frame
from wardround.console.reports.svg import Point, Scale, dot, line, path, picture, tag, text, thin, tick_text
from wardround.privacy.accounting import rounded_up
from wardround.simulations.result import EstimateResult, MadeUpHospital

MOST_POINTS = 240
MOST_CELLS = 120


def forest(
    key: str, words: str, own: EstimateResult, shared: EstimateResult, reach: tuple[float, float], chance: float | None
) -> Markup:
    """Own and shared estimate with their intervals on one scale, 180 x 60; the rows are 20 apart."""
    scale = Scale(*reach, 8.0, 172.0)
    marks = [line(scale(tick), 2, scale(tick), 40, "grid") for tick in scale.ticks(3)]
    if chance is not None and reach[0] < chance < reach[1]:
        marks.append(line(scale(chance), 2, scale(chance), 40, "reference"))
    for kind, y, found in (("own", 10.0, own), ("shared", 30.0, shared)):
        if found.value is None:
            marks.append(text(90, y + 4, NOT_ESTIMABLE, "label", "middle"))
            continue
        if found.low is not None and found.high is not None:
            marks.append(line(scale(found.low), y, scale(found.high), y, f"{kind}-line"))
            marks += [line(scale(x), y - 4, scale(x), y + 4, f"{kind}-end") for x in (found.low, found.high)]
        marks.append(dot(scale(found.value), y, 4.5, f"{kind}-dot"))
    marks += [text(scale(tick), 54, tick_text(tick), "tick", "middle") for tick in scale.ticks(3)]
    said = "; ".join(f"{kind} model {_said(found)}" for kind, found in (("own", own), ("shared", shared)))
    return picture(key, 180, 60, f"{words} with 95 % intervals", said, *marks, class_="forest")


def differences(
    key: str, words: str, rows: Sequence[tuple[str, EstimateResult, bool]], reach: tuple[float, float]
) -> Markup:
    """Differences to the own model with their intervals, a row each: (model, difference, whether it has a verdict).

    The line is 0: no difference. A difference without a verdict is hollow.
    """
    bottom = TOP + 30.0 * len(rows)
    scale = Scale(*reach, 10.0, WIDTH - 10.0)
    marks = [line(scale(tick), TOP, scale(tick), bottom, "grid") for tick in scale.ticks(4)]
    marks.append(line(scale(0), TOP, scale(0), bottom, "own-line"))
    for number, (model, found, judged) in enumerate(rows):
        y = TOP + 30.0 * number + 21.0
        kind = "shared" if judged else "unjudged"
        marks.append(text(10, y - 11, model, "tick"))
        if found.value is None:
            marks.append(text(WIDTH / 2, y + 4, NOT_ESTIMABLE, "label", "middle"))
            continue
        if found.low is not None and found.high is not None:
            marks.append(line(scale(found.low), y, scale(found.high), y, "shared-line"))
            marks += [line(scale(x), y - 4, scale(x), y + 4, "shared-end") for x in (found.low, found.high)]
        marks.append(dot(scale(found.value), y, 4.5, f"{kind}-dot"))
    marks += [text(scale(tick), bottom + 14, tick_text(tick), "tick", "middle") for tick in scale.ticks(4)]
    marks.append(text(10, bottom + 30, "\N{LEFTWARDS ARROW} own is better", "tick"))
    marks.append(text(WIDTH - 10, bottom + 30, "own is worse \N{RIGHTWARDS ARROW}", "tick", "end"))
    said = "; ".join(f"{model} minus own {_said(found)}" for model, found, _ in rows)
    return picture(key, WIDTH, bottom + 34, words, said, *marks, class_="panel")


def over_rounds(
    key: str,
    words: str,
    values: Sequence[tuple[int, float]],
    mean: Sequence[tuple[int, float]],
    own: float | None,
    reach: tuple[float, float],
    last_round: int,
    void: Sequence[int],
) -> Markup:
    """A metric of the shared model after each round at one hospital, its own model's level, the mean over hospitals."""
    x, y, marks = frame(150, reach, (0.5, last_round + 0.5), _round_ticks(last_round))
    marks += _void_bands(x, y, void)
    marks.append(path([(x(r), y(v)) for r, v in thin(mean, MOST_POINTS)], "mean-line"))
    if own is not None:
        marks.append(line(x.start, y(own), x.end, y(own), "own-line"))
    points = [(x(r), y(v)) for r, v in thin(values, MOST_POINTS)]
    marks.append(path(points, "shared-line"))
    if len(points) <= 40:
        marks += [dot(px, py, 2.2, "shared-dot") for px, py in points]
    marks.append(text((x.start + x.end) / 2, 148, "round", "label", "middle"))
    said = f"from {decimal(values[0][1])} in round {values[0][0]} to {decimal(values[-1][1])} in round {values[-1][0]}"
    return picture(key, WIDTH, 152, words, said if values else NOT_ESTIMABLE, *marks, class_="panel")


def spending(
    key: str,
    words: str,
    said: str,
    values: Sequence[tuple[int, float]],
    limit: float | None,
    most: float,
    last_round: int,
    void: Sequence[int],
) -> Markup:
    """epsilon_site after each round as steps, with the plan's limit."""
    x, y, marks = frame(130, (0.0, most), (0.0, float(last_round)), _round_ticks(last_round))
    marks += _void_bands(Scale(x.low + 0.5, x.high + 0.5, x.start, x.end), y, void)
    if limit is not None:
        marks.append(line(x.start, y(limit), x.end, y(limit), "limit-line"))
        marks.append(text(x.start + 4, y(limit) - 4, f"limit {rounded_up(limit)}", "label"))
    corners: list[Point] = [(x(0), y(0))]
    for round_number, value in thin(values, MOST_POINTS):
        corners += [(x(round_number - 1), y(value)), (x(round_number), y(value))]
    marks.append(path(corners, "shared-line"))
    marks.append(text((x.start + x.end) / 2, 128, "round", "label", "middle"))
    return picture(key, WIDTH, 132, words, said, *marks, class_="panel")


def hospital_bar(key: str, words: str, hospital: MadeUpHospital, most: int) -> Markup:
    """A made-up hospital's patients on a scale to ``most``, 180 x 18: positive ones full, the others hollow."""
    width = 178.0 * hospital.patients / max(most, 1)
    marks = [tag("rect", x=1.0, y=2.0, width=width, height=14.0, class_="cell-empty")]
    said = f"{hospital.patients} patients"
    if hospital.positive_share is not None:
        marks.append(tag("rect", x=1.0, y=2.0, width=width * hospital.positive_share, height=14.0, class_="cell-full"))
        said += f", of which {100 * hospital.positive_share:.0f} % positive"
    return picture(key, 180, 18, words, said, *marks, class_="bar")


def strip(key: str, words: str, marks: Sequence[Mark]) -> Markup:
    """One cell a round: full (in the sum), half (answered in a void round), empty and crossed (missing).

    It stretches to any width. Above ``MOST_CELLS`` rounds a cell stands for several and shows the worst of them.
    """
    cells = _worst(marks, MOST_CELLS)
    shapes = []
    for number, found in enumerate(cells):
        left, gap = number * 20.0, 2.0
        if found is Mark.IN_SUM:
            shapes.append(tag("rect", x=left + gap, y=2, width=16, height=16, class_="cell-full"))
            continue
        shapes.append(tag("rect", x=left + gap, y=2, width=16, height=16, class_="cell-empty"))
        if found is Mark.UNUSED:
            shapes.append(tag("rect", x=left + gap, y=10, width=16, height=8, class_="cell-full"))
        else:
            shapes.append(path([(left + 5, 5), (left + 15, 15)], "cell-cross"))
            shapes.append(path([(left + 15, 5), (left + 5, 15)], "cell-cross"))
    said = ", ".join(f"{list(marks).count(kind)} {kind}" for kind in Mark)
    width = max(len(cells), 1) * 20
    return picture(key, width, 20, words, said, *shapes, class_="strip", preserveAspectRatio="none")


def swatch(kind: str) -> Markup:
    """A legend's sample; decoration, so it has no name."""
    shapes = {
        "own": [line(1, 7, 27, 7, "own-line"), dot(14, 7, 4.5, "own-dot")],
        "shared": [line(1, 7, 27, 7, "shared-line"), dot(14, 7, 4.5, "shared-dot")],
        "own-line": [line(1, 7, 27, 7, "own-line")],
        "shared-line": [line(1, 7, 27, 7, "shared-line")],
        "own-dot": [dot(14, 7, 5, "own-dot")],
        "shared-dot": [dot(14, 7, 5, "shared-dot see-through")],
        "unjudged": [line(1, 7, 27, 7, "shared-line"), dot(14, 7, 4.5, "unjudged-dot")],
        "own-level": [line(1, 7, 27, 7, "own-level")],
        "mean": [line(1, 7, 27, 7, "mean-line")],
        "limit": [line(1, 7, 27, 7, "limit-line")],
        "reference": [line(1, 7, 27, 7, "reference")],
        "void": [tag("rect", x=8, y=0, width=12, height=14, class_="void-band")],
        "full": [tag("rect", x=7, y=0.5, width=13, height=13, class_="cell-full")],
        "half": [
            tag("rect", x=7, y=0.5, width=13, height=13, class_="cell-empty"),
            tag("rect", x=7, y=7, width=13, height=6.5, class_="cell-full"),
        ],
        "empty": [
            tag("rect", x=7, y=0.5, width=13, height=13, class_="cell-empty"),
            path([(10, 3.5), (17, 10.5)], "cell-cross"),
            path([(17, 3.5), (10, 10.5)], "cell-cross"),
        ],
    }[kind]
    return tag("svg", *shapes, viewBox="0 0 28 14", width=28, height=14, class_="swatch", aria_hidden="true")


def _round_ticks(last: int) -> list[float]:
    scale = Scale(0, last, 0, 1)
    ticks = [1.0, *(tick for tick in scale.ticks(3) if tick > 1 + last / 8 and tick == int(tick))]
    if last - ticks[-1] > last / 8:
        ticks.append(float(last))
    return ticks


def _void_bands(x: Scale, y: Scale, void: Sequence[int]) -> list[Markup]:
    return [
        tag(
            "rect",
            x=x(r - 0.5),
            y=y.end,
            width=max(x(r + 0.5) - x(r - 0.5), 1.0),
            height=y.start - y.end,
            class_="void-band",
        )
        for r in thin(void, MOST_POINTS)
    ]


def _worst(marks: Sequence[Mark], most: int) -> list[Mark]:
    size = -(-len(marks) // most) or 1
    order = list(Mark)
    return [max(marks[start : start + size], key=order.index) for start in range(0, len(marks), size)]


def _said(found: EstimateResult) -> str:
    if found.value is None:
        return f"{NOT_ESTIMABLE} ({found.reason})" if found.reason else NOT_ESTIMABLE
    reach = interval(found)
    return f"{decimal(found.value)} ({reach})" if reach else decimal(found.value)
