"""The pictures of the budget page as SVG: columns of spending stacked by study, and a bar of what is still granted.

A layer is told by its pattern and its letter, never by its colour, and a table beside the picture says the same. Two
sizes of the columns are drawn, for desks and telephones, because a picture that shrinks takes its letters with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from markupsafe import Markup

from wardround.console.reports.svg import Scale, line, nice_step, path, picture, tag, text

LETTERS: Final = "ABCDEF"
"""Of the layers, from below: one more than ``timeline.MOST_LAYERS``, for all other studies together."""

_DRAWN: Final = (
    "",
    "M-2 2l4-4M0 8l8-8M6 10l4-4",
    "M2 2h2v2h-2zM6 6h2v2h-2z",
    "M0 2h8M0 6h8",
    "M2 0v8M6 0v8",
    "M0 0l8 8M8 0l-8 8",
)
"""The patterns in their order, as paths in a square of 8; the first is solid."""

_GAP: Final = 16.0
"""Between two letters at the side, in pixels."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is drawn: ``layers`` from below, each with what had been spent at the end of each span, in units."""

    layers: Sequence[Sequence[int]]
    allowance: int
    spans: Sequence[str]
    title: str
    description: str
    percent: Callable[[Decimal], str]


def columns(shown: Columns) -> Markup:
    """The picture in both sizes; the page's style shows one of them."""
    wide = _columns(shown, "wide", 760.0, 280.0)
    return wide + _columns(shown, "narrow", 328.0, 260.0)


def swatch(index: int) -> Markup:
    """A layer's pattern and letter, for tables; decoration, since the letter stands beside it."""
    box = path([(1, 1), (23, 1), (23, 15), (1, 15), (1, 1)], f"layer layer-{index}")
    return tag(
        "svg", _patterns(f"s{index}", [index]), _filled(box, f"s{index}", index),
        viewBox="0 0 24 16", width=24, height=16, class_="swatch", aria_hidden="true", focusable="false",
    )  # fmt: skip


def bar(spent: int, granted: int, allowance: int) -> Markup:
    """Spent, granted and not used, free, of the whole; the words beside it say the numbers."""
    first = 100.0 * min(spent, allowance) / allowance
    both = 100.0 * min(spent + granted, allowance) / allowance
    parts = [_box(0, 0, 100, 8, "track"), _box(0, 0, first, 8, "fill")]
    stripes = [path([(x, 0), (x, 8)], "stripe") for x in (first + 0.5 + index for index in range(100)) if x < both] or (
        [path([(first, 0), (first, 8)], "stripe")] if both > first else []
    )
    return tag(
        "svg", *parts, *stripes, viewBox="0 0 100 8", preserveAspectRatio="none", class_="meter forecast",
        aria_hidden="true", focusable="false",
    )  # fmt: skip


def _columns(shown: Columns, size: str, width: float, height: float) -> Markup:
    most = max(sum(at) for at in zip(*shown.layers, strict=True)) / shown.allowance
    step = nice_step(max(most, 1e-9) / 4)
    top = min(1.0, -(-most // step) * step) if most > step * 1e-6 else 1.0
    y = Scale(0.0, top, height - 32, 12.0)
    x = Scale(0.0, float(len(shown.spans)), 52.0, width - 44.0)
    marks = [_patterns(size, range(len(shown.layers)))]
    tick, number = Decimal(repr(step)), 0
    while float(tick * number) <= top * (1 + 1e-9):
        at = y(float(tick * number))
        marks.append(line(x.start, at, x.end, at, "grid" if number else "axis"))
        marks.append(text(x.start - 6, at + 4, shown.percent(tick * number), "tick as-given", "end"))
        number += 1
    below, ends = [0] * len(shown.spans), []
    for index, layer in enumerate(shown.layers):
        boxes = []
        each = x(1) - x(0)
        broad = min(each * 0.8, 48.0)
        for span, units in enumerate(layer):
            low, high = y(below[span] / shown.allowance), y((below[span] + units) / shown.allowance)
            if units > 0:
                left = x(span + 0.5) - broad / 2
                boxes.append(f"M{left:.1f} {high:.1f}h{broad:.1f}V{low:.1f}h-{broad:.1f}z")
            below[span] += units
        ends.append((y((below[-1] - layer[-1] / 2) / shown.allowance), LETTERS[index]))
        marks.append(_filled(tag("path", d="".join(boxes), class_=f"layer layer-{index}"), size, index))
    marks += _letters(ends, x.end + 8, y)
    marks += _below(shown.spans, x, height - 12)
    key = f"spending-{size}"
    return picture(key, width, height, shown.title, shown.description, *marks, class_=f"spending {size}")


def _patterns(prefix: str, layers: Sequence[int]) -> Markup:
    """The definitions that ``_filled`` names; names are unique on the page by ``prefix``."""
    return tag(
        "defs",
        *(
            tag(
                "pattern",
                tag("path", d=_DRAWN[index], class_="drawn"),
                id=f"{prefix}-{index}",
                width=8,
                height=8,
                patternUnits="userSpaceOnUse",
            )
            for index in layers
            if _DRAWN[index]
        ),
    )


def _filled(shape: Markup, prefix: str, index: int) -> Markup:
    """``shape`` with its layer's pattern, which a sheet of styles cannot name for two pictures."""
    if not _DRAWN[index]:
        return shape
    return tag("g", shape, fill=f"url(#{prefix}-{index})")


def _letters(ends: list[tuple[float, str]], x: float, y: Scale) -> list[Markup]:
    """A letter beside the end of each layer; where layers are thin, letters keep their distance upwards."""
    marks, free = [], y.start + _GAP
    for at, letter in ends:
        free = min(at, free - _GAP)
        marks.append(line(x - 6, at, x + 2, free, "leader"))
        marks.append(text(x + 5, free + 4, letter, "letter as-given"))
    return marks


def _below(spans: Sequence[str], x: Scale, at: float) -> list[Markup]:
    """The first and the last span's words."""
    if len(spans) == 1:
        return [text(x(0.5), at, spans[0], "tick as-given", "middle")]
    return [text(x.start, at, spans[0], "tick as-given"), text(x.end, at, spans[-1], "tick as-given", "end")]


def _box(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return path([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], kind)
