"""*Countersignatures*: who else has signed which head of this ledger, and whose ledgers this site has signed."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.pages.audit import READERS
from wardround.console.web.queries.witnesses import MOST_SHOWN, WitnessView, witness_view
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE, path="/audit/witnesses", title=N_("Countersignatures"), group="record", roles=READERS, router=router
)


@router.get("/audit/witnesses")
def witnesses(request: Request) -> Response:
    """The page."""
    queries = console(request).queries
    with queries.ledger.read() as (books, store):
        view: WitnessView = witness_view(books, store, queries.folder.site)
    return render(request, "audit_witnesses.html.j2", title=_("Countersignatures"), view=view, most=MOST_SHOWN)
