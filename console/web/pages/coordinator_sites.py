"""*Sites* of the coordinator: who has joined with which key, who is invited, and the roster in force."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.coordinator import EXPIRY_DAYS, HubView
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/sites",
    title=N_("Hospitals"),
    group="run",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)


@router.get("/sites")
def sites(request: Request, looks: Viewer) -> Response:
    """The page."""
    queries = console(request).queries
    view: HubView = queries.view_with_links()
    return render(
        request, "coordinator_sites.html.j2", title=_("Hospitals"), view=view, soon=EXPIRY_DAYS, today=queries.today()
    )
