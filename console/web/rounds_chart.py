"""The grid of sites and rounds as SVG: each kind of answer has a shape of its own, and a colour only besides.

All marks of one kind are one path, so that a grid of twenty sites and many rounds stays a few kilobytes. The table of
rounds on the same page says the same in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wardround.console.web.queries.hub_rounds import Cell, Part, RoundLine

COLUMN: Final = 22
ROW: Final = 24
SIZE: Final = 12
TOP: Final = 24
LABEL: Final = 8
"""Pixels: a column, a row, a mark, and the line above and the room before the marks."""

_SQUARE: Final = f"h{SIZE}v{SIZE}h-{SIZE}z"
_CIRCLE: Final = f"m0 {SIZE // 2}a{SIZE // 2} {SIZE // 2} 0 1 0 {SIZE} 0a{SIZE // 2} {SIZE // 2} 0 1 0-{SIZE} 0"
SHAPES: Final = {
    Part.IN_SUM: _SQUARE,
    Part.UNOPENED: _SQUARE,
    Part.SILENT: f"{_SQUARE}m0 {SIZE}l{SIZE}-{SIZE}",
    Part.REFUSED: f"l{SIZE} {SIZE}m0-{SIZE}l-{SIZE} {SIZE}",
    Part.LOST: _CIRCLE,
    Part.LATE: f"{_CIRCLE}h{SIZE}",
    Part.VIOLATED: f"m{SIZE // 2} 0l{SIZE // 2} {SIZE // 2}-{SIZE // 2} {SIZE // 2}-{SIZE // 2}-{SIZE // 2}z",
    Part.WAITING: f"m{SIZE // 2 - 2} {SIZE // 2 - 2}h4v4h-4z",
}
"""How each is drawn from the upper left corner of its place on. Filled or not is the style sheet's."""


@dataclass(frozen=True, slots=True)
class Text:
    x: int
    y: int
    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """``marks``: (kind, path); ``columns``: numbers of rounds; ``sums``: sites in each sum, "" where there is none."""

    width: int
    height: int
    marks: tuple[tuple[str, str], ...]
    columns: tuple[Text, ...]
    sums: tuple[Text, ...]
    rules: tuple[int, ...]


def grid(lines: Sequence[RoundLine], now: Sequence[Cell], sites: int, columns: int, number: int = 0) -> Grid:
    """The receipts of ``lines`` and, behind them, the round that runs (``now``, of this ``number``).

    ``columns``: so many are drawn at least, so that the picture does not grow with each round.
    """
    paths: dict[Part, list[str]] = {}
    heads, sums = [], []
    shown = [*((line.number if line.attempt == 1 else 0, line.cells, line.opened_over) for line in lines)]
    if now:
        shown.append((number, tuple(now), 0))
    for column, (head, cells, over) in enumerate(shown):
        x = LABEL + column * COLUMN
        if head and (head % 5 == 0 or column == 0):
            heads.append(Text(x + SIZE // 2, TOP - 10, str(head)))
        for row, cell in enumerate(cells):
            y = TOP + row * ROW + (ROW - SIZE) // 2
            paths.setdefault(cell.part, []).append(f"M{x} {y}{SHAPES[cell.part]}")
        if over:
            sums.append(Text(x + SIZE // 2, TOP + sites * ROW + 17, str(over)))
    width = LABEL + max(columns, len(shown)) * COLUMN
    marks = tuple((part.value, "".join(path)) for part, path in paths.items())
    rules = tuple(TOP + row * ROW for row in range(sites + 1))
    return Grid(width, TOP + (sites + 1) * ROW, marks, tuple(heads), tuple(sums), rules)


def alone(part: Part) -> str:
    """One mark by itself, for the legend: in a box of 16 pixels."""
    return f"M2 2{SHAPES[part]}"
