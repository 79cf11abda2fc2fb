"""A paper as people read it, between content and rendering: headings, facts, tables, boxes and blanks, in one language.

Whoever renders these adds no word of its own, so PDF and HTML say the same. Texts are plain (``terms.clean``); a
rendering escapes them for its own format.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Tone(StrEnum):
    """How a box or a row is marked; the words say the same, so no colour is needed to understand it."""

    PLAIN = "plain"
    CLAIM = "claim"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """``code``: text to be compared character by character."""

    name: str
    text: str
    code: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    rows: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """``sub`` stands below ``text``, smaller: the conditions of an epsilon, for example."""

    text: str
    sub: str = ""
    code: bool = False
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """``weight``: its share of the width, beside those of the others; ``whole``: its lines are not broken."""

    title: str
    weight: int
    right: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    cells: tuple[Cell, ...]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Box:
    title: str
    texts: tuple[str, ...]
    tone: Tone = Tone.CLAIM


@dataclass(frozen=True, slots=True)
class Blank:
    """Something that only people can say: a ``label`` that says so, what is asked, and empty ``lines`` to write on."""

    label: str
    asks: str
    lines: int = 3


Block: TypeAlias = Heading | Text | Bullets | Facts | Table | Box | Blank


@dataclass(frozen=True, slots=True)
class Footer:
    """What stands on every page: how to verify, and the QR code's text. ``page`` has {page} and {pages}."""

    lines: tuple[str, ...]
    code: str
    alternative: str
    page: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole paper."""

    eyebrow: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    footer: Footer
    language: str
    signed: str
