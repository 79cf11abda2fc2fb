"""*Witnesses* of the coordinator: who has signed which head of whose ledger, and the alarms with their evidence."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.alarm_words import alarm_words
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.pages.audit_witnesses import alarm_file
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/witnesses",
    title=N_("Witnesses"),
    group="record",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)


@router.get("/witnesses")
def witnesses(request: Request, looks: Viewer) -> Response:
    """The page."""
    table, alarms = console(request).queries.witnesses()
    shown = [(one, alarm_words(one, coordinator=True)) for one in alarms]
    return render(
        request,
        "coordinator_witnesses.html.j2",
        title=_("Witnesses"),
        table=table,
        waiting=[pair for pair in shown if pair[0].open],
        answered=[pair for pair in shown if not pair[0].open],
    )


@router.get("/witnesses/alarms/{digest}")
def evidence(request: Request, looks: Viewer, digest: str) -> Response:
    """One alarm with its evidence, as a file."""
    return alarm_file(console(request).queries.alarm(digest), digest)
