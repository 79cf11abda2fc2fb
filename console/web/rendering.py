"""From a page's values to HTML: one Jinja environment, everything escaped, words in the reader's language."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from wardround.console.templates import environment
from wardround.console.web import i18n
from wardround.console.web.given import code, given
from wardround.console.web.guards import csrf_token, session_of
from wardround.console.web.page import GROUPS

_TEMPLATES: Final = Path(__file__).with_name("templates")


def render(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """The answer made of ``template``; ``values`` are what the page shows."""
    shown = templates().get_template(template).render(**_frame(request), **values)
    return HTMLResponse(shown, status)


@cache
def templates() -> Environment:
    """The console's templates."""
    made = environment(_TEMPLATES, ["jinja2.ext.i18n"])
    made.install_gettext_callables(i18n._, i18n.ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.filters |= {
        "given": given,
        "code": code,
        "said_again": i18n.said_again,
        "size": i18n.size,
        "moment": i18n.moment,
        "day": i18n.day,
        "iso": i18n.iso,
        "ago": lambda at: i18n.ago(at, datetime.now(UTC)),
        "number": i18n.number,
        "percent_up": i18n.percent_up,
        "number_full": i18n.number_full,
        "numeral": i18n.numeral,
        "span": i18n.span,
        "up": i18n.epsilon_up,
    }
    made.globals |= {"LANGUAGES": i18n.LANGUAGES, "GROUPS": GROUPS, "share": i18n.percent_tenth_up}
    return made


def _frame(request: Request) -> dict[str, Any]:
    """What every page has: navigation, who is logged in, language, token."""
    console = request.app.state.console
    found = session_of(request)
    looks = found if found is not None and found.complete else None
    pages = [page for page in console.pages if looks is not None and looks.role in page.roles and page.in_navigation]
    language = i18n.spoken()
    open_notices = 0 if looks is None or console.noticing is None else console.noticing.count(looks.role)
    return {
        "face": console.face.value,
        "place": console.place,
        "viewer": looks,
        "csrf": csrf_token(request) or "",
        "navigation": pages,
        "badges": {"/notices": open_notices},
        "account_page": next((page.path for page in console.pages if page.own_account), None),
        "here": request.url.path,
        "language": language,
        "draft": any(one.code == language and one.draft for one in i18n.LANGUAGES),
    }
