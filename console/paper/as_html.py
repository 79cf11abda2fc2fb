"""A paper as one HTML file: no network, no script, every value escaped, styles allowed by their hash alone.

The signed content is in a link of the page, as base64: a click saves it, and ``signed_in`` finds it.
"""

import binascii
import re
from base64 import b64decode, b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import segno
from jinja2 import Environment
from markupsafe import Markup

from wardround.console.paper.blocks import Sheet
from wardround.console.templates import environment
from wardround.protocol.errors import UsageError

_TEMPLATES: Final = Path(__file__).parent / "templates"
_REPORT: Final = Path(__file__).parents[1] / "reports" / "templates" / "report.css"
_LINK: Final = re.compile(rb'href="data:application/json;base64,([A-Za-z0-9+/=]+)"')


def render_html(sheet: Sheet, signed: bytes) -> bytes:
    """The page; ``signed`` is the file of the signed content, which it carries."""
    css = Markup(_REPORT.read_text(encoding="utf-8") + (_TEMPLATES / "paper.css").read_text(encoding="utf-8"))
    page = (
        _environment()
        .get_template("paper.html.j2")
        .render(
            sheet=sheet,
            css=css,
            css_hash=b64encode(sha256(css.encode()).digest()).decode(),
            code=Markup(_svg(sheet.footer.code)),
            signed=b64encode(signed).decode(),
        )
    )
    return f"{page}\n".encode()


def signed_in(page: bytes) -> bytes:
    """The signed content that an HTML page carries, of which nothing is verified. Raises UsageError without one."""
    found = _LINK.findall(page)
    try:
        if len(found) == 1:
            return b64decode(found[0], validate=True)
    except binascii.Error:
        pass
    raise UsageError("the page carries no signed content", "take the file as 'wardround site' wrote it")


def _svg(text: str) -> str:
    made = segno.make(text, error="m", micro=False, boost_error=False)
    return str(made.svg_inline(border=2, omitsize=True, dark="#000", light="#fff", svgclass="code", lineclass=None))


@cache
def _environment() -> Environment:
    made = environment(_TEMPLATES)
    made.filters["kind"] = lambda block: type(block).__name__
    return made
