"""*Check the ledger*: a person lets the whole chain be computed again and looks on; what ``ledger verify`` says."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from wardround.console.web.given import given
from wardround.console.web.guards import Form, console
from wardround.console.web.i18n import N_, _, ngettext, number
from wardround.console.web.page import Page
from wardround.console.web.pages.audit import READERS
from wardround.console.web.queries.recount import Holds, Recount, Run
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face

router = APIRouter()

WHERE: Final = "/audit/verify"

PAGE: Final = Page(
    face=Face.SITE,
    path=WHERE,
    title=N_("Check the ledger"),
    group="record",
    roles=READERS,
    router=router,
    asks=frozenset({WHERE}),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at: what, how many, and what that says."""

    what: str
    count: int
    says: str


@router.get(WHERE)
def verify(request: Request) -> Response:
    """The page: the button, the run that goes on, or what the last one found."""
    recount = _recount(request)
    run = recount.run
    return render(
        request,
        "audit_verify.html.j2",
        title=_("Check the ledger"),
        run=run,
        wait=recount.wait,
        progress=progress_words(run),
        verdicts=verdicts(run.holds) if run.holds else [],
    )


@router.post(WHERE)
def start(request: Request, form: Form) -> Response:
    """Begin a run, unless one goes on or has just ended; the page says which."""
    _recount(request).start()
    return RedirectResponse(WHERE, 303)


@router.get(f"{WHERE}/progress")
def progress(request: Request) -> JSONResponse:
    """How far the run is, for the page's script."""
    run = _recount(request).run
    return JSONResponse(
        {
            "running": run.state == "running",
            "value": run.so_far,
            "most": max(1, run.entries),
            "words": progress_words(run),
        }
    )


def progress_words(run: Run) -> str:
    """How far a run is, in a sentence."""
    if not run.entries:
        return _("The check begins.")
    if run.so_far >= run.entries - 500:
        return _("All %(entries)s entries are read; the last signatures are being checked.") % {
            "entries": number(run.entries)
        }
    return _("%(so_far)s of %(entries)s entries so far.") % {
        "so_far": number(run.so_far),
        "entries": number(run.entries),
    }


def verdicts(holds: Holds) -> list[Verdict]:
    """What a check that found nothing wrong has shown, and what it has not where there was nothing to look at."""
    witnesses = given(", ".join(holds.countersigned_by))
    return [
        Verdict(
            _("Chain of hashes"),
            holds.entries,
            _("Every entry is in its one spelling, follows from the one before, and keeps the ledger's rules."),
        ),
        Verdict(
            _("Signatures of the site"),
            holds.signatures,
            _("Every entry is signed with the key that lies in this site's folder.")
            if holds.signatures
            else _("This is a simulation's ledger: nothing is signed."),
        ),
        Verdict(
            _("Signatures of officers"),
            holds.approvals,
            _("Every approval is signed by officers whom the ledger named before, as many as it needs.")
            if holds.approvals
            else _("No officer has signed anything yet."),
        ),
        Verdict(
            _("Checkpoints that others hold"),
            holds.checkpoints,
            _("Each of them is a beginning of this ledger: nothing in it was rewritten or cut off.")
            if holds.checkpoints
            else _("Nobody else holds one, so whether the end was cut off cannot be seen from here."),
        ),
        Verdict(
            _("Countersignatures"),
            holds.countersignatures,
            _("Each belongs to the checkpoint that it names. Signed by: %(names)s") % {"names": witnesses}
            if holds.countersignatures
            else _("No other hospital and no coordinator has signed this ledger yet."),
        ),
        *_recovered(holds),
    ]


def _recovered(holds: Holds) -> list[Verdict]:
    if not holds.recoveries:
        return []
    says = ngettext(
        "The ledger was once put back to an older copy; two officers signed that it goes on, and what may have run "
        "in between is charged.",
        "The ledger was put back to an older copy several times; two officers signed each time that it goes on, and "
        "what may have run in between is charged.",
        holds.recoveries,
    )
    return [Verdict(_("Recoveries"), holds.recoveries, says)]


def _recount(request: Request) -> Recount:
    found: Recount = console(request).queries.recount
    return found
