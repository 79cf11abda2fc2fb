"""*Patients' opt-outs*: how many there are and where they come from, as counts; and what an opt-out does."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.patients import STEP, OptOutView, opt_out_view
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/patients",
    title=N_("Opt-outs"),
    group="record",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)

KINDS: Final = {
    "list": N_("A list of ids"),
    "column": N_("A flag in a table of the electronic record"),
    "fhir": N_("FHIR Consent resources"),
}


@router.get("/patients")
def patients(request: Request) -> Response:
    """The page."""
    queries = console(request).queries
    with queries.ledger.read() as (books, store):
        view: OptOutView = opt_out_view(books, store, queries.folder.path)
    return render(
        request,
        "patients.html.j2",
        title=_("Patients' opt-outs"),
        view=view,
        sources=[(_(KINDS[one.kind]), one) for one in view.sources],
        step=STEP,
    )
