"""*Studies* of a hospital: every plan that was proposed to it, how it stands, and what it costs."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.studies import study_list
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.protocol.messages import Standing

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/studies",
    title=N_("Studies"),
    group="decide",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)

FILTERS: Final = (
    Standing.PROPOSED,
    Standing.APPROVED,
    Standing.SUSPENDED,
    Standing.REFUSED,
    Standing.REVOKED,
)


@router.get("/studies")
def studies(request: Request, looks: Viewer, standing: str = "", page: str = "1") -> Response:
    """The list, of one standing or of all."""
    if standing not in ("", *FILTERS) or not (page.isascii() and page.isdigit() and 1 <= len(page) <= 4):
        raise Refused(400)
    wanted = Standing(standing) if standing else None
    shown = study_list(console(request).queries, wanted, max(1, int(page)))
    return render(request, "studies.html.j2", title=_("Studies"), shown=shown, standing=standing, filters=FILTERS)
