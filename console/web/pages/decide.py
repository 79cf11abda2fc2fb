"""*Decide* about one study: approve, refuse, revoke. What is decided is a fact that an officer's own key has signed.

An account signs nothing by itself, and is not bound to one key: whoever of the ledger's officers has signed is named on
the page and in the ledger. Nothing that is half signed is kept here; it is a file that the first officer takes along.
"""

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.client.asking import LEAST_REASON, domains_for, to_approve, to_revoke
from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN
from wardround.client.signing import SignedFact, missing, read_request, request_for
from wardround.console.plan_words import campaign_words
from wardround.console.web.deciding import Fault, Sheet, brought, decided, read_decision, record, sheet_of
from wardround.console.web.guards import Form, Viewer, console, field
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.decide import PlanHere, plan_here
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.protocol.errors import UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.messages import Standing
from wardround.protocol.plan import PrivacyMode, StudyPlan

router = APIRouter()
PATH: Final = "/studies/{digest}/decide"

PAGE: Final = Page(
    face=Face.SITE,
    path=PATH,
    title=N_("Decide"),
    group="decide",
    roles=frozenset({Role.OFFICER}),
    router=router,
    writers=frozenset({Role.OFFICER}),
)

DECISIONS: Final = {"approve": N_("Approve"), "refuse": N_("Refuse"), "revoke": N_("Revoke")}
DECIDED: Final = (Standing.APPROVED, Standing.REVOKED, Standing.REFUSED)
MOST_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class Choice:
    """What the officer is about to decide. ``reason``: of a waiver."""

    decision: str
    domain: str = TRAINING_DOMAIN
    attempts: int = 1
    reason: str = ""


@router.get(PATH)
def decide(request: Request, looks: Viewer, digest: str) -> Response:
    """The page: what would be signed, for the choice in the address."""
    here = _here(request, digest)
    return _page(request, here, _choice(request.query_params, here), done="done" in request.query_params)


@router.get(f"{PATH}/request.json")
def request_file(request: Request, looks: Viewer, digest: str) -> Response:
    """The request of ``wardround site study request``, for a plan that needs no reason."""
    here = _here(request, digest)
    return _download(here, _facts(here, _choice(request.query_params, here)), "request")


@router.post(f"{PATH}/request.json")
def request_with_reason(request: Request, looks: Viewer, form: Form, digest: str) -> Response:
    """The same with a waiver's reason, which stands in no address."""
    here = _here(request, digest)
    return _download(here, _facts(here, _choice(form, here)), "request")


@router.post(f"{PATH}/waiver")
def waiver(request: Request, looks: Viewer, form: Form, digest: str) -> Response:
    """The page with the waiver that the officer's reason makes. Nothing is kept."""
    here = _here(request, digest)
    return _page(request, here, _choice(form, here))


@router.post(f"{PATH}/half")
def half(request: Request, looks: Viewer, form: Form, digest: str) -> Response:
    """The page for the second officer: what the file of the first says. Nothing is kept."""
    here = _here(request, digest)
    try:
        asked, plan = read_request(brought(form, "half"))
        if (asked.site, asked.ledger) != (here.terms.site, here.terms.ledger_key):
            raise UsageError("this file is for another site's ledger", "ask for the file that was made here")
        if plan is None or plan.digest != digest:
            raise UsageError("this file is about another plan", "open it on the page of that plan")
        sheet = sheet_of(here.terms, plan, asked.facts)
    except UsageError as error:
        return _page(request, here, Choice("approve"), fault=Fault.of(error))
    return _page(request, here, Choice("approve"), sheet=sheet)


@router.post(PATH)
def decision(request: Request, looks: Viewer, form: Form, digest: str) -> Response:
    """Record signed facts. Facts that lack an officer come back as the file for her."""
    here, text = _here(request, digest), field(form, "signed", 500_000)
    choice = _choice(form, here)
    try:
        text = brought(form, "signed")
        signed = read_decision(text, here.terms, here.plan)
        sheet = sheet_of(here.terms, here.plan, signed.facts)
    except UsageError as error:
        return _page(request, here, choice, fault=Fault.of(error), signed=text)
    if missing(signed.facts):
        if (fault := decided(request, looks, form, lambda site: None)) is None:
            return _download(here, signed.facts, "half-signed")
    elif (fault := decided(request, looks, form, record(signed.facts))) is None:
        return _done(digest)
    return _page(request, here, choice, sheet=sheet, fault=fault, signed=text)


@router.post(f"{PATH}/refuse")
def refuse(request: Request, looks: Viewer, form: Form, digest: str) -> Response:
    """Say no to the plan; the reason stays at the site."""
    here, reason = _here(request, digest), field(form, "reason", MOST_REASON)
    call = pb.RefuseRequest(digest=digest, reason=reason)
    if not reason:
        fault: Fault | None = Fault(409, _("There is no reason."), _("Write why: the record will be read later."))
    else:
        fault = decided(request, looks, form, lambda site: site.RefuseStudy(call, timeout=SECONDS))
    if fault is None:
        return _done(digest)
    return _page(request, here, Choice("refuse", reason=reason), fault=fault)


def _here(request: Request, digest: str) -> PlanHere:
    found = plan_here(console(request).queries, digest)
    if found is None:
        raise Refused(404)
    return found


def _choice(given: Any, here: PlanHere) -> Choice:
    """From an address or a form; what is not among the choices is refused."""
    approved = here.standing is Standing.APPROVED
    name = str(given.get("decision", "revoke" if approved else "approve"))
    attempts = str(given.get("attempts", "1"))
    domains = _domains(here)
    domain = str(given.get("domain", "")) or (TRAINING_DOMAIN if TRAINING_DOMAIN in domains else "".join(domains[:1]))
    reason = str(given.get("reason", ""))
    known = attempts.isascii() and attempts.isdigit() and 1 <= int(attempts[:3]) <= most_attempts(here.plan)
    if name not in DECISIONS or not known or len(reason) > MOST_REASON or len(attempts) > 2:
        raise Refused(400)
    return Choice(name, domain, int(attempts), reason)


def most_attempts(plan: StudyPlan) -> int:
    """How often an officer may let each round be charged; a campaign is charged once, however often a tick is tried."""
    return 1 if isinstance(plan.task, Indicators) else plan.attempts


def _domains(here: PlanHere) -> tuple[str, ...]:
    return tuple(name for name in here.domains if name != CONSORTIUM_DOMAIN)


def _facts(here: PlanHere, choice: Choice) -> tuple[SignedFact, ...]:
    if choice.decision == "revoke":
        return to_revoke(here.plan, here, here.terms.site)
    if here.plugin_fault:
        raise UsageError(here.plugin_fault, _("Nobody can read here what would be approved: IT installs it first."))
    if waits := [name for name in domains_for(here.plan, choice.domain) if name in here.terms.again]:
        raise UsageError(
            f"the budget of the data domain '{waits[0]}' rests on a suspended key",
            "an officer whose key stands signs it again first, with the numbers that it has for ever",
        )
    return to_approve(here.plan, here, here.terms.site, choice.domain, choice.attempts, choice.reason)


def _page(
    request: Request,
    here: PlanHere,
    choice: Choice,
    *,
    sheet: Sheet | None = None,
    fault: Fault | None = None,
    signed: str = "",
    done: bool = False,
) -> Response:
    unprotected = here.plan.privacy.mode is PrivacyMode.NONE
    needs_reason = unprotected and choice.decision == "approve" and choice.domain not in here.waived
    obstacle: UsageError | None = None
    if sheet is None and choice.decision != "refuse" and (choice.reason or not needs_reason):
        try:
            sheet = sheet_of(here.terms, here.plan, _facts(here, choice))
        except UsageError as error:
            obstacle = error
    answer = render(
        request,
        "decide.html.j2",
        200 if fault is None else fault.status,
        title=_("Decide"),
        stands=here,
        choice=choice,
        decisions=[(name, words) for name, words in DECISIONS.items() if name != "revoke" or here.grants],
        domains=_domains(here),
        campaign=isinstance(here.plan.task, Indicators),
        tries=most_attempts(here.plan),
        published=campaign_words(here.plan),
        unprotected=unprotected,
        needs_reason=needs_reason,
        least_reason=LEAST_REASON,
        sheet=sheet,
        obstacle=obstacle,
        fault=fault,
        signed=signed,
        done=done and here.standing in DECIDED,
        answers=console(request).ask().answers,
    )
    if fault is not None and fault.after is not None:
        answer.headers["retry-after"] = str(fault.after)
    return answer


def _download(here: PlanHere, facts: tuple[SignedFact, ...], name: str) -> Response:
    text = request_for(here.plan, here.terms.site, here.terms.ledger_key, facts)
    kept = f'attachment; filename="{name}-{here.plan.digest[:12]}.json"'
    return Response(text, media_type="application/json", headers={"content-disposition": kept})


def _done(digest: str) -> Response:
    return RedirectResponse(f"/studies/{digest}/decide?done=1", 303)
