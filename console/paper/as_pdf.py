"""A paper as PDF: A4, bookmarks, page numbers, a QR code on every page, the signed content attached; PDF/A-3u.

The same content gives the same bytes: dates are the content's own, the file's id is the content's digest, and the
fonts are those of a pinned package (DejaVu 2.37, with matplotlib), so no machine's own are used. A sign
that they lack is spelt out as its code, never left as an empty box.

The library marks no headings for screen readers (it tags figures only); the bookmarks are what it offers, and the HTML
page is the one to read aloud.
"""

import re
from datetime import UTC, datetime
from html import escape
from typing import Final

from fpdf.prefs import ViewerPreferences

from wardround.console.paper.blocks import (
    Blank,
    Block,
    Box,
    Bullets,
    Cell,
    Facts,
    Heading,
    Row,
    Sheet,
    Table,
    Text,
    Tone,
)
from wardround.console.paper.pdf_page import (
    ALERT,
    ALERT_BACK,
    BODY,
    CODE,
    HEADINGS,
    LABEL,
    MUTED,
    RAISED,
    RULE,
    SHARED,
    SMALL,
    STRONG,
    Area,
    Page,
    Piece,
    Style,
)
from wardround.protocol.errors import UsageError

_SIGNED: Final = re.compile(rb'stream\r?\n(\{"content":.*?"signature":"[0-9a-f]{128}"\})\r?\nendstream', re.S)
_TITLE: Final = Style(bold=True, size=17, leading=1.22)
_LEAD: Final = Style(size=11, leading=1.4)
_FACT_NAMES: Final = 46.0
"""mm."""

_KEPT_ROWS, _KEPT_WHOLE = 8, 62.0
"""So many facts stay on one page, unless they take more than so many mm."""

_KEPT_LIST: Final = 100.0
"""mm; a longer list of points is broken over pages."""


def render_pdf(sheet: Sheet, signed: bytes, made_at: str, digest: str) -> bytes:
    """The file; ``signed`` is the file of the signed content, attached as ``sheet.signed``."""
    made = datetime.strptime(made_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    # Set once to count the pages: each says of how many it is.
    counted = Page(sheet.footer, digest[:32], 0)
    _set(counted, sheet)
    page = Page(sheet.footer, digest[:32], counted.pages_count)
    page.set_title(sheet.title)
    page.set_author(sheet.footer.lines[0])
    page.set_subject(sheet.eyebrow)
    page.set_creator("Wardround")
    page.set_producer("fpdf2")
    page.set_lang(sheet.language)
    page.set_creation_date(made)
    page.set_xmp_metadata(_metadata(sheet, made))
    page.viewer_preferences = ViewerPreferences(display_doc_title=True)
    page.embed_file(
        bytes=signed,
        basename=sheet.signed,
        desc=sheet.eyebrow,
        creation_date=made,
        modification_date=made,
        mime_type="application/json",
        associated_file_relationship="Source",
    )
    _set(page, sheet)
    return bytes(page.output())


def signed_in(file: bytes) -> bytes:
    """The signed content that a PDF carries, of which nothing is verified. Raises UsageError without one."""
    found = _SIGNED.findall(file)
    if len(found) == 1:
        return bytes(found[0])
    raise UsageError("the PDF carries no signed content", "take the file as 'wardround site' wrote it")


def _metadata(sheet: Sheet, made: datetime) -> str:
    """XMP as PDF/A asks for; the library's own would hold the time of day."""
    at = made.isoformat(timespec="seconds")
    title, subject, author = (escape(text) for text in (sheet.title, sheet.eyebrow, sheet.footer.lines[0]))
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:pdf="http://ns.adobe.com/pdf/1.3/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/"
 xmp:CreatorTool="Wardround" xmp:CreateDate="{at}" xmp:ModifyDate="{at}" xmp:MetadataDate="{at}" pdf:Producer="fpdf2">
<pdfaid:part>3</pdfaid:part><pdfaid:conformance>U</pdfaid:conformance>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{subject}</rdf:li></rdf:Alt></dc:description>
<dc:creator><rdf:Seq><rdf:li>{author}</rdf:li></rdf:Seq></dc:creator>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def _set(page: Page, sheet: Sheet) -> None:
    page.add_page()
    page.paragraph(sheet.eyebrow, SMALL, after=2.5)
    page.paragraph(sheet.title, _TITLE, after=2.5)
    page.paragraph(sheet.lead, _LEAD, after=4)
    for block, following in zip(sheet.blocks, (*sheet.blocks[1:], None), strict=True):
        _draw(page, block, following)


def _draw(page: Page, block: Block, following: Block | None) -> None:
    match block:
        case Heading():
            style = HEADINGS[min(block.level, 4)]
            # A heading stays with what follows it; a box, a table's head or a blank need more room than a line.
            page.need(style.size * 0.6 + _least(page, following))
            page.space(7 if block.level == 2 else 4)
            page.start_section(page.shown(block.text, style), level=min(block.level, 4) - 2, strict=False)
            page.paragraph(block.text, style, after=2)
        case Text():
            page.paragraph(block.text, SMALL if block.muted else BODY, after=3)
        case Bullets():
            for item in block.items:
                page.row(_bullet(page, item), pad=0.7)
            page.space(2)
        case Facts():
            rows = _facts(page, block)
            page.need(min(_KEPT_WHOLE, sum(page.height(areas) for areas in rows[:_KEPT_ROWS])))
            for areas in rows:
                page.row(areas, rule=RULE)
            page.space(3)
        case Table():
            _table(page, block)
        case Box():
            _box(page, block)
        case Blank():
            page.blank(block.label, block.asks, block.lines)


def _least(page: Page, following: Block | None) -> float:
    """Room that a heading asks for below itself, so that it does not stand alone at the foot of a page."""
    if isinstance(following, Facts):
        return min(_KEPT_WHOLE, sum(page.height(areas) for areas in _facts(page, following)[:_KEPT_ROWS])) + 10
    if isinstance(following, Bullets):
        whole = sum(page.height(_bullet(page, item)) - 1.2 for item in following.items)
        return whole + 10 if whole <= _KEPT_LIST else 30
    return 34 if isinstance(following, Heading | Table | Box | Blank) else 22


def _bullet(page: Page, item: str) -> list[Area]:
    return [Area(0, 5, [Piece("•", MUTED)]), Area(5, page.epw - 5, [Piece(item, BODY)])]


def _facts(page: Page, block: Facts) -> list[list[Area]]:
    return [
        [
            Area(0, _FACT_NAMES - 4, [Piece(fact.name, LABEL)]),
            Area(_FACT_NAMES, page.epw - _FACT_NAMES, [Piece(fact.text, CODE if fact.code else BODY)]),
        ]
        for fact in block.rows
    ]


def _table(page: Page, block: Table) -> None:
    if block.caption:
        page.need(24)
        page.paragraph(block.caption, SMALL, after=1.5)
    weights = [column.weight for column in block.columns]
    unit, gap = page.epw / sum(weights), 4.0
    lefts = [unit * sum(weights[:index]) for index in range(len(weights))]
    boxes = [(left, unit * weight - gap) for left, weight in zip(lefts, weights, strict=True)]

    def areas(pieces: list[list[Piece]]) -> list[Area]:
        return [
            Area(left, width, parts, column.right)
            for (left, width), parts, column in zip(boxes, pieces, block.columns, strict=True)
        ]

    def head() -> None:
        page.row(areas([[Piece(column.title, LABEL)] for column in block.columns]), rule=MUTED.colour)

    page.need(17)
    head()
    for row in block.rows:
        _row(page, row, areas([_pieces(cell) for cell in row.cells]), head)
    page.space(4)


def _row(page: Page, row: Row, areas: list[Area], head: object) -> None:
    alert = row.tone is Tone.ALERT
    page.row(
        areas,
        rule=RULE,
        fill=ALERT_BACK if alert else None,
        bar=ALERT if alert else None,
        outset=2.6,
        head=head if callable(head) else None,
    )


def _pieces(cell: Cell) -> list[Piece]:
    main = Piece(cell.text, CODE if cell.code else STRONG if cell.strong else BODY)
    return [main, Piece(cell.sub, SMALL)] if cell.sub else [main]


def _box(page: Page, block: Box) -> None:
    alert = block.tone is Tone.ALERT
    texts = [Piece(block.title, STRONG), *(Piece(text, BODY) for text in block.texts)]
    for index, piece in enumerate(texts):
        page.row(
            [Area(5, page.epw - 10, [piece])],
            fill=ALERT_BACK if alert else RAISED,
            bar=ALERT if alert else SHARED,
            pad=1.4,
            top=2.2 if index == 0 else 0,
            bottom=2.2 if index == len(texts) - 1 else 0,
        )
    page.space(4)
