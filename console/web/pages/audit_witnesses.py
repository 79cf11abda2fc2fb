"""*Countersignatures*: who has signed which head of this ledger, whose this site has signed, and alarms on ledgers."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.client.store.witnessing import alarms_in
from wardround.console.web.alarm_words import alarm_words
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.pages.audit import READERS
from wardround.console.web.queries.witnesses import MOST_SHOWN, WitnessView, witness_view
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face
from wardround.console.web.security import Refused

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
    shown = [(one, alarm_words(one)) for one in view.alarms]
    return render(
        request,
        "audit_witnesses.html.j2",
        title=_("Countersignatures"),
        view=view,
        most=MOST_SHOWN,
        waiting=[pair for pair in shown if pair[0].open],
        answered=[pair for pair in shown if not pair[0].open],
    )


@router.get("/audit/witnesses/alarms/{digest}")
def evidence(request: Request, looks: Viewer, digest: str) -> Response:
    """One alarm with its evidence, as a file."""
    queries = console(request).queries
    with queries.ledger.read() as (_books, store):
        found = alarms_in(store, queries.folder.site)
    return alarm_file(next((one.content for one in found if one.digest == digest), None), digest)


def alarm_file(content: bytes | None, digest: str) -> Response:
    """An alarm in canonical JSON, to be saved: anybody can verify it. Raises Refused where there is none."""
    if content is None:
        raise Refused(404)
    headers = {"content-disposition": f'attachment; filename="alarm-{digest[:12]}.json"'}
    return Response(content, media_type="application/json", headers=headers)
