"""*Studies* of the coordinator: every one, and how it stands."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.coordinator import HubView
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/",
    title=N_("Studies"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)

STATES: Final = {
    "proposed": N_("Proposed"),
    "running": N_("Running"),
    "stopped": N_("Stopped"),
    "finished": N_("Finished"),
    "needs_people": N_("Needs people"),
}


@router.get("/")
def studies(request: Request, looks: Viewer) -> Response:
    """The list."""
    view: HubView = console(request).queries.view()
    states = {study.digest: _(STATES.get(study.state, study.state)) for study in view.studies}
    return render(request, "coordinator_studies.html.j2", title=_("Studies"), view=view, states=states)
