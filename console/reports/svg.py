"""Small pieces of SVG 1.1 as escaped markup, and linear scales with round ticks.

Colour, stroke and type come from CSS classes and custom properties, so a picture follows the page's light or dark
theme. No attribute carries style, so the page's content security policy needs no exception.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from markupsafe import Markup, escape

T = TypeVar("T")

Point = tuple[float, float]


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; text and attribute values are escaped. ``class_`` is class, ``stroke_width`` is stroke-width."""
    # Names of attributes are names of parameters, so only values and children can hold what must be escaped.
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{pairs}>{inside}</{name}>")


def picture(
    key: str, width: float, height: float, title: str, description: str, *children: str, **more: object
) -> Markup:
    """An svg element with a name and a description for those who do not see it; ``key`` is unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-t"),
        tag("desc", description, id=f"{key}-d"),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
        **more,
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, kind: str = "label", anchor: str = "start") -> Markup:
    return tag("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def path(points: Sequence[Point], kind: str) -> Markup:
    """A polyline through ``points``."""
    moves = " ".join(f"{'L' if index else 'M'}{_number(x)} {_number(y)}" for index, (x, y) in enumerate(points))
    return tag("path", d=moves, class_=kind)


def dot(x: float, y: float, radius: float, kind: str) -> Markup:
    return tag("circle", cx=x, cy=y, r=radius, class_=kind)


@dataclass(frozen=True, slots=True)
class Scale:
    """Values ``low``..``high`` onto positions ``start``..``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of ``value``; values outside lie on the border."""
        span = self.high - self.low or 1.0
        share = min(max((value - self.low) / span, 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the range, at most ``most`` + 1 of them."""
        step = nice_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least ``least``."""
    if not least > 0 or not math.isfinite(least):
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))


def around(values: Sequence[float], step: float, within: tuple[float, float] | None = None) -> tuple[float, float]:
    """The range of ``values``, widened to multiples of ``step`` and kept ``within`` bounds that hold them all."""
    inside = [value for value in values if math.isfinite(value)]
    if not inside:
        return within or (0.0, 1.0)
    low, high = math.floor(min(inside) / step + 1e-9) * step, math.ceil(max(inside) / step - 1e-9) * step
    if within is not None and within[0] <= min(inside) and max(inside) <= within[1]:
        low, high = max(low, within[0]), min(high, within[1])
    return (low, high) if high > low else (low - step, high + step)


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of ``items``, evenly, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def tick_text(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _text(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
