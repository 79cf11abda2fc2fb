"""The sheet of A4 that a PDF is set on: styles, rows that break over pages, blanks, and the foot with its QR code.

Lengths are in mm, sizes in points. The colours are those of the reports' pages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, TypeAlias

import segno
from fpdf import FPDF
from fpdf.enums import MethodReturnValue

from wardround.console.paper.blocks import Footer

Colour: TypeAlias = tuple[int, int, int]

INK: Final = (26, 32, 38)
GREY: Final = (87, 97, 107)
RULE: Final = (217, 223, 228)
SHARED: Final = (10, 91, 134)
ALERT: Final = (163, 42, 34)
ALERT_BACK: Final = (252, 241, 239)
RAISED: Final = (245, 247, 248)

_POINT: Final = 25.4 / 72
_MARGIN: Final = 20.0
_TOP: Final = 18.0
_FOOT: Final = 37.0
_CODE: Final = 23.0


@dataclass(frozen=True, slots=True)
class Style:
    """How text looks; ``leading`` is the distance of lines over the size."""

    bold: bool = False
    mono: bool = False
    size: float = 9.0
    colour: Colour = INK
    leading: float = 1.42

    @property
    def height(self) -> float:
        """Of a line, in mm."""
        return self.size * self.leading * _POINT


BODY: Final = Style()
STRONG: Final = Style(bold=True)
MUTED: Final = Style(colour=GREY)
LABEL: Final = Style(size=8, colour=GREY, leading=1.5)
SMALL: Final = Style(size=7.5, colour=GREY, leading=1.4)
CODE: Final = Style(mono=True, size=7.6, leading=1.55)
HEADINGS: Final = {2: Style(bold=True, size=12.5, leading=1.3), 3: Style(bold=True, size=10), 4: Style(bold=True)}


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    style: Style


@dataclass(frozen=True, slots=True)
class Area:
    """A column of a row: from ``left`` of the text's edge, so wide, with pieces below one another."""

    left: float
    width: float
    pieces: list[Piece]
    right: bool = False


@dataclass(slots=True)
class _Line:
    text: str
    style: Style


def _fonts() -> Path:
    """The folder of DejaVu 2.37, which comes with matplotlib. That package is only read here, never imported."""
    return Path(str(distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf")))


class Page(FPDF):
    """``id_`` is 32 hex digits: the file's identifier; ``pages``: how many there will be."""

    def __init__(self, footer: Footer, id_: str, pages: int) -> None:
        super().__init__("portrait", "mm", "A4", enforce_compliance="PDF/A-3U")
        self._foot, self._id, self._pages = footer, id_, pages
        fonts = _fonts()
        for style, file in (("", "DejaVuSans"), ("B", "DejaVuSans-Bold")):
            self.add_font("text", style, fonts / f"{file}.ttf")
        self.add_font("mono", "", fonts / "DejaVuSansMono.ttf")
        self.set_margins(_MARGIN, _TOP, _MARGIN)
        self.set_auto_page_break(False, _FOOT)
        self.c_margin = 0
        self._code = _modules(footer.code)

    @property
    def bottom(self) -> float:
        """Where the text ends."""
        return float(self.h - _FOOT)

    def file_id(self) -> str:
        """The same for the same content, as the format asks for."""
        return f"<{self._id.upper()}><{self._id.upper()}>"

    def need(self, height: float) -> None:
        """Begin a new page unless so much is left."""
        if self.y + height > self.bottom and self.y > _TOP:
            self.add_page()

    def space(self, height: float) -> None:
        """Leave a gap, but none at the head of a page."""
        if self.y > _TOP:
            self.y += height

    def shown(self, text: str, style: Style) -> str:
        """``text`` as the fonts can show it."""
        known = self.fonts[self._font_key(style)].cmap  # type: ignore[union-attr]
        return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)

    def height(self, areas: list[Area]) -> float:
        """Of a row of ``areas`` with the usual padding."""
        return max(_height(self._lines(area)) for area in areas) + 2.6

    def paragraph(self, text: str, style: Style, after: float) -> None:
        """A text over the whole width."""
        self.row([Area(0, self.epw, [Piece(text, style)])], pad=0)
        self.y += after

    def row(
        self,
        areas: list[Area],
        *,
        rule: Colour | None = None,
        fill: Colour | None = None,
        bar: Colour | None = None,
        pad: float = 1.3,
        top: float = 0,
        bottom: float = 0,
        outset: float = 0,
        head: Callable[[], None] | None = None,
    ) -> None:
        """Texts side by side. A row that fits on a page is kept whole; a longer one goes on, with ``head`` again.

        ``fill`` and ``bar`` begin ``outset`` to the left of the text's edge.
        """
        lines = [self._lines(area) for area in areas]
        whole = max(_height(column) for column in lines) + 2 * pad + top + bottom
        if self.y + whole > self.bottom and (whole <= self.bottom - _TOP - 12 or self.y > self.bottom - 30):
            self._next(head)
        while any(lines):
            room = self.bottom - self.y - 2 * pad - top - bottom
            parts = [_taken(column, room) for column in lines]
            height = max(_height(part) for part in parts) + 2 * pad + top + bottom
            self._backing(height, fill, bar, outset)
            for area, part in zip(areas, parts, strict=True):
                self._column(area, part, self.y + pad + top)
            self.y += height
            if rule is not None:
                self.set_draw_color(*rule)
                self.set_line_width(0.2)
                self.line(_MARGIN, self.y, _MARGIN + self.epw, self.y)
            if any(lines):
                self._next(head)

    def blank(self, label: str, asks: str, lines: int) -> None:
        """A field to write into: a dashed frame, what is asked, and empty lines."""
        said = [*self._lines(Area(4, self.epw - 8, [Piece(f"{label} {asks}", STRONG)]))]
        height = _height(said) + 8.5 * lines + 5
        self.need(height + 2)
        self.space(1)
        begin = self.y
        self._column(Area(4, self.epw - 8, []), said, begin + 2)
        self.set_draw_color(*GREY)
        self.set_line_width(0.25)
        self.set_dash_pattern(1.2, 1)
        self.rect(_MARGIN, begin, self.epw, height)
        self.set_dash_pattern()
        self.set_draw_color(*RULE)
        for number in range(1, lines + 1):
            at = begin + _height(said) + 2 + 8.5 * number
            self.line(_MARGIN + 4, at, _MARGIN + self.epw - 4, at)
        self.y = begin + height + 3.5

    def footer(self) -> None:
        """The line, the QR code, how to verify, and the number of the page."""
        top = self.h - _FOOT + 5
        self.set_draw_color(*RULE)
        self.set_line_width(0.2)
        self.line(_MARGIN, top, _MARGIN + self.epw, top)
        self._draw_code(_MARGIN, top + 3)
        left, y = _CODE + 5, top + 3.5
        for index, text in enumerate(self._foot.lines):
            style = Style(size=7.5, bold=True) if index == 0 else Style(size=6.6, colour=GREY, mono=index > 1)
            width = self.epw - left - (0 if index else 32)
            lines = self._lines(Area(left, width, [Piece(text, style)]))
            self._column(Area(left, width, []), lines, y)
            y += _height(lines) + 0.7
        number = Piece(self._foot.page.format(page=self.page_no(), pages=self._pages), Style(size=7.5, colour=GREY))
        area = Area(self.epw - 32, 32, [number], right=True)
        self._column(area, self._lines(area), top + 3.5)

    def _next(self, head: Callable[[], None] | None) -> None:
        self.add_page()
        if head is not None:
            head()

    def _font_key(self, style: Style) -> str:
        return "mono" if style.mono else "textB" if style.bold else "text"

    def _font(self, style: Style) -> None:
        self.set_font("mono" if style.mono else "text", "B" if style.bold and not style.mono else "", style.size)
        self.set_text_color(*style.colour)

    def _lines(self, area: Area) -> list[_Line]:
        found: list[_Line] = []
        for piece in area.pieces:
            self._font(piece.style)
            text = self.shown(piece.text, piece.style)
            wrapped = self.multi_cell(
                area.width, piece.style.height, text, dry_run=True, output=MethodReturnValue.LINES, align="L"
            )
            assert isinstance(wrapped, list)
            found += [_Line(line, piece.style) for line in wrapped or [""]]
        return found

    def _column(self, area: Area, lines: list[_Line], y: float) -> None:
        for line in lines:
            self._font(line.style)
            x = _MARGIN + area.left
            if area.right:
                x += area.width - self.get_string_width(line.text)
            # The baseline: the letters' height is some 0.73 of the size in these fonts.
            self.text(x, y + (line.style.height + 0.73 * line.style.size * _POINT) / 2, line.text)
            y += line.style.height

    def _backing(self, height: float, fill: Colour | None, bar: Colour | None, outset: float) -> None:
        if fill is not None:
            self.set_fill_color(*fill)
            self.rect(_MARGIN - outset, self.y, self.epw + outset, height, style="F")
        if bar is not None:
            self.set_fill_color(*bar)
            self.rect(_MARGIN - outset, self.y, 1.0, height, style="F")

    def _draw_code(self, x: float, y: float) -> None:
        step = _CODE / len(self._code)
        self.set_fill_color(0, 0, 0)
        for index, row in enumerate(self._code):
            begin = None
            for place, dark in enumerate([*row, False]):
                if dark and begin is None:
                    begin = place
                elif not dark and begin is not None:
                    self.rect(x + begin * step, y + index * step, (place - begin) * step, step, style="F")
                    begin = None


@cache
def _modules(text: str) -> tuple[tuple[bool, ...], ...]:
    """The QR code without its quiet zone, which the page's margins are."""
    made = segno.make(text, error="m", micro=False, boost_error=False)
    return tuple(tuple(bool(dark) for dark in row) for row in made.matrix)


def _height(lines: list[_Line]) -> float:
    return sum(line.style.height for line in lines)


def _taken(lines: list[_Line], room: float) -> list[_Line]:
    """Take from ``lines`` what fits into ``room``, one line at least."""
    count, used = 0, 0.0
    while count < len(lines) and (used + lines[count].style.height <= room or count == 0):
        used += lines[count].style.height
        count += 1
    taken, lines[:] = lines[:count], lines[count:]
    return taken
