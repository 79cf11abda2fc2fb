"""*Studies* of the coordinator: every one, and how it stands."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.pages.coordinator_study import study_words
from wardround.console.web.queries.coordinator import HubView
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/studies",
    title=N_("Studies"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)

MOST: Final = 100
"""Studies on the page, the newest: who has more asks the command line."""


@router.get("/studies")
def studies(request: Request, looks: Viewer) -> Response:
    """The list."""
    view: HubView = console(request).queries.view()
    shown = [(study, study_words(study)) for study in view.studies[:MOST]]
    hidden = len(view.studies) - len(shown)
    return render(request, "coordinator_studies.html.j2", title=_("Studies"), studies=shown, hidden=hidden)
