"""*Officers' keys* of a hospital: who may sign, which key was suspended, and what waits to be signed again."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.client.store.keys import fingerprint
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.officers import officers
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.privacy.approvals import EYES_TO_RECOVER

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/officers",
    title=N_("Officers' keys"),
    group="record",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)

MOST_LINES: Final = 50
"""Entries that are shown of a suspended key, the newest; the command line shows all."""

KINDS: Final = {
    "officers": N_("List of officers"),
    "open_domain": N_("Budget"),
    "waive": N_("Waiver"),
    "grant": N_("Approval"),
    "close": N_("Budget closed"),
    "recover": N_("Recovery"),
    "set_clock": N_("Clock set"),
    "suspend": N_("Key suspended"),
}
EFFECTS: Final = {
    "stands": (N_("Stands"), "good"),
    "suspended": (N_("Waits"), "alert"),
    "replaced": (N_("Replaced later"), "plain"),
    "revokes": (N_("Revokes"), "plain"),
    "done": (N_("Stays"), "plain"),
}
REASONS: Final = {"lost": N_("Suspended: lost"), "stolen": N_("Suspended: stolen")}


@router.get("/officers")
def page(request: Request, looks: Viewer) -> Response:
    """The page; the same for every role that sees it."""
    view = officers(console(request).queries)
    return render(
        request,
        "officers.html.j2",
        title=_("Officers' keys"),
        view=view,
        prints={line.officer.key: fingerprint(bytes.fromhex(line.officer.key)) for line in view.keys},
        kinds={kind: _(words) for kind, words in KINDS.items()},
        effects={effect: (_(words), tone) for effect, (words, tone) in EFFECTS.items()},
        reasons={reason: _(words) for reason, words in REASONS.items()},
        too_few=view.able < EYES_TO_RECOVER,
        most=MOST_LINES,
    )
