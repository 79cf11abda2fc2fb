"""*Releases and receipts* of a hospital: what left, when, under which hash, and which receipt stands for it."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from wardround.console.web.given import given
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, number
from wardround.console.web.page import Page
from wardround.console.web.pages.budget import READERS
from wardround.console.web.pages.budget_charges import MOST_PAGES, audit_path
from wardround.console.web.queries.receipts import Standing, Verdict
from wardround.console.web.queries.releases import ReleaseDetail, ReleasesView, SentLine
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face
from wardround.console.web.security import Refused
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import Receipt

router = APIRouter()
release_router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE, path="/releases", title=N_("Releases and receipts"), group="record", roles=READERS, router=router
)
RELEASE: Final = Page(
    face=Face.SITE,
    path="/releases/{release}",
    title=N_("One release"),
    group="record",
    roles=READERS,
    router=release_router,
)

VERDICTS: Final = {
    Standing.NONE: ("plain", N_("No receipt yet")),
    Standing.VERIFIED: ("good", N_("✓ Verified")),
    Standing.UNPINNED: ("note", N_("Not checked: no roster")),
    Standing.BAD: ("alert", N_("✗ Not verified")),
}
"""How a badge looks, and what it says."""

OUTCOMES: Final = {
    "replied": N_("answered"),
    "refused": N_("refused"),
    "late": N_("answered too late"),
    "lost": N_("did not answer"),
    "waiting": N_("did not answer in time"),
    "violated the protocol": N_("broke the protocol"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An answer that left, and the verdict on its receipt: ``tone`` and ``words`` of a badge, ``more`` beside it."""

    sent: SentLine
    what: str
    tone: str
    words: str
    more: str


@router.get("/releases")
def releases(
    request: Request,
    looks: Viewer,
    study: Annotated[str, Query(max_length=64)] = "",
    page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
) -> Response:
    """What left, in pages; ``study`` is a plan's digest."""
    view: ReleasesView = console(request).queries.releases.view(study, page)
    rows = [_row(sent) for sent in view.sent.items]
    bad = sum(row.sent.verdict.standing is Standing.BAD for row in rows)
    return render(request, "releases.html.j2", title=_("Releases and receipts"), view=view, rows=rows, bad=bad)


@release_router.get("/releases/{release}")
def release(request: Request, looks: Viewer, release: int) -> Response:
    """One answer and its receipt."""
    found = _found(request, release)
    receipt = found.sent.verdict.receipt
    return render(
        request,
        "releases_one.html.j2",
        title=_("Release of round %(round)s") % {"round": number(found.sent.round_number)},
        found=found,
        row=_row(found.sent),
        receipt=receipt,
        lines=[] if receipt is None else [(line, outcome_words(line.outcome)) for line in receipt.sites],
        before=before_words(found, receipt),
        audit=audit_path(request, looks.role),
    )


@release_router.get("/releases/{release}/receipt.json")
def receipt_file(request: Request, looks: Viewer, release: int) -> Response:
    """The stored bytes of the receipt, as they were signed: whatever they are worth."""
    found = _found(request, release)
    if found.receipt_content is None:
        raise Refused(404)
    return Response(
        found.receipt_content,
        media_type="application/json",
        headers={"content-disposition": f'attachment; filename="receipt-{release}.json"'},
    )


def _found(request: Request, number_: int) -> ReleaseDetail:
    found: ReleaseDetail | None = console(request).queries.releases.release(number_)
    if found is None:
        raise Refused(404)
    return found


def _row(sent: SentLine) -> Row:
    tone, words = VERDICTS[sent.verdict.standing]
    return Row(sent, what_left(sent), tone, _(words), verdict_words(sent.verdict))


def what_left(sent: SentLine) -> str:
    """What the message was; its size where it is recorded."""
    if sent.plan.parameters is None:
        return _("A vector; its plan is not held here.")
    parameters = number(sent.plan.parameters)
    if sent.plan.masked:
        return _("A vector under masks, for a model of %(parameters)s parameters.") % {"parameters": parameters}
    if sent.bytes_kept is None:
        return _("A vector in the open, for a model of %(parameters)s parameters.") % {"parameters": parameters}
    return _("A vector in the open, for a model of %(parameters)s parameters: %(bytes)s bytes.") % {
        "parameters": parameters,
        "bytes": number(sent.bytes_kept),
    }


def verdict_words(verdict: Verdict) -> str:
    """Who has signed, or what does not hold."""
    match verdict.standing:
        case Standing.NONE:
            return _("The coordinator brings it with a later round.")
        case Standing.BAD:
            return _(verdict.fault)
        case Standing.UNPINNED:
            return _("This site's own signature holds. The key of the coordinator is in no roster that is pinned here.")
        case Standing.VERIFIED:
            signers = [_("the coordinator") if name == COORDINATOR else name for name in verdict.signers]
            return _("Signed by %(signers)s.") % {"signers": ", ".join(signers)}


def before_words(found: ReleaseDetail, receipt: Receipt | None) -> str:
    """Which receipt this one follows."""
    if receipt is None:
        return ""
    if found.before is None:
        return _("The receipt before it is not held here.")
    if not found.before:
        return _("It is the first of its study.")
    return _("It follows the receipt of round %(round)s.") % {"round": number(found.before)}


def outcome_words(outcome: str) -> str:
    """How a hospital's round ended, as the coordinator wrote it."""
    return _(OUTCOMES[outcome]) if outcome in OUTCOMES else given(outcome, 40)
